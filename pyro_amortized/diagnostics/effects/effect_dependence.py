r"""Whether mean and variance of a random effect depend on a variable.

With the posterior means :math:`\bar e_i` of the standardised effect and their reliabilities
:math:`r_i`, :math:`\bar e_i / \sqrt{r_i}` has the mean :math:`\sqrt{r_i} \mu(x_i)`.

- *Dependence and interaction*: a regression on :math:`\sqrt{r_i}\,(1, x_i)`, and of two variables
  with few levels on their products beyond both.
- *Neighbours in the file*: the normal scores :math:`s_i` of :math:`\bar e_i / \sqrt{r_i}` in the
  order of the file. Of independent ones, von Neumann's ratio
  :math:`\sum_i (s_{i+1} - s_i)^2 / \sum_i s_i^2` has the mean 2 and a variance of about 4 / N; it
  is smaller where batches of an assay, sites or families that nothing marks differ. The means of
  :math:`\sqrt{N}` blocks of the file are compared by the F test.
- *Variance*: the distances of :math:`\bar e_i / \sqrt{r_i}` from the medians of the levels of the
  variable, or from the regression on a quantity, are compared as in the test of Brown and Forsythe,
  by the F test of their square roots, which are nearly normal for normal effects; the variances of
  levels of a normal effect also by the test of Bartlett.

References:
    Bartels (1982), The rank version of von Neumann's ratio test for randomness, JASA 77.
    Brown, Forsythe (1974), Robust tests for the equality of variances, JASA 69.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

from ..variables.compared_variables import Variable
from ..variables.variable_tests import (
    columns_of,
    contrast,
    dependence_p_value,
    known_values,
    normal_scores,
    regression_p_value,
)
from .file_blocks import block_p_value
from .random_effects import RandomEffects

DependenceKind = Literal[
    "variable",
    "joint",
    "interaction",
    "spread",
    "neighbours",
    "recording",
    "correlation",
    "mean",
    "normality",
    "outlier",
]


@dataclass(frozen=True)
class DependenceSettings:
    r"""When a dependence is tested.

    Args:
        min_spare: Fewest individuals beyond the coefficients of a regression.
        min_in_cell: Fewest individuals with every pair of levels of two variables, so that no
            single one decides about their interaction.
        min_spread: Fewest individuals whose variances are compared.
        min_in_level: Fewest individuals of a level whose variance is compared.
        min_informed: Mean reliability from which posterior means are nearly normal, so that the
            test of Bartlett, which has more power, is made too.
        min_reliability: Reliability from which a posterior mean is divided by its own standard
            deviation, the root of the reliability: below, that is known too roughly.
    """

    min_spare: int = 4
    min_in_cell: int = 3
    min_spread: int = 20
    min_in_level: int = 5
    min_informed: float = 0.5
    min_reliability: float = 0.01


DEPENDENCE = DependenceSettings()


class EffectTest(NamedTuple):
    r"""One test.

    Args:
        kind: What is tested.
        effect: Name of the individual parameter, in unconstrained coordinates.
        against: What it is compared with: a variable, another effect, an individual, or "".
        p_value: P-value of this test alone.
        size: How large the deviation is: the difference of the mean of one level from the others
            (of two levels, the second from the first), the change per standard deviation of a
            quantity, both unconstrained, of several effects the most significant one; the
            correlation; the distance of an outlier in standard deviations.
        words: The finding in words.
        is_used: Whether the model uses the variable; it may do so for another effect.
    """

    kind: DependenceKind
    effect: str
    against: str
    p_value: float
    size: float
    words: str
    is_used: bool = False


def dependence(
    effects: RandomEffects, j: int, variable: Variable, kind: DependenceKind
) -> Iterator[EffectTest]:
    r"""The tests of the mean of one effect against one variable, if there are enough individuals.

    Args:
        effects: Standardised random effects.
        j: Index of the effect.
        variable: The variable.
        kind: "variable", which is also tested for a curve, or "recording".
    """
    used = known_values(variable) & (effects.reliability[:, j].numpy() > DEPENDENCE.min_reliability)
    root = effects.reliability[:, j].sqrt().numpy()[used]
    columns = columns_of(variable, used)
    y = effects.means[:, j].numpy()[used] / root
    design = np.column_stack([root, root[:, None] * columns])
    if len(y) < design.shape[1] + DEPENDENCE.min_spare:
        return

    def p_value_of(own: np.ndarray) -> float:
        return regression_p_value(y, np.column_stack([root, root[:, None] * own]))

    p_value, name = dependence_p_value(variable, used, p_value_of), effects.names[j]
    found = contrast(y, root, variable, used)
    size = found.slope * float(effects.sd[:, j].mean())
    words = (
        f"{name} depends on {variable.name} (p = {p_value:.1g}): it is "
        f"{'larger' if size > 0 else 'smaller'} by {abs(size):.2f} (a factor of "
        f"{math.exp(min(size, 50.0)):.2f}, if it is a logarithm) {found.where}"
    )
    yield EffectTest(kind, name, variable.name, p_value, size, words)
    if not variable.levels and kind == "variable":
        curved = np.column_stack([design, root * (columns[:, 0] ** 2 - 1)])
        p_value = regression_p_value(y, curved, num_base=2)
        slopes, *_ = np.linalg.lstsq(curved, y, rcond=None)
        size = float(slopes[-1] * effects.sd[:, j].mean())
        words = (
            f"{name} depends on {variable.name} in a curve (p = {p_value:.1g}): it is "
            f"{'smallest' if size > 0 else 'largest'} in the middle"
        )
        yield EffectTest(kind, name, f"{variable.name}, curved", p_value, size, words)


def interaction(
    effects: RandomEffects, j: int, first: Variable, second: Variable
) -> Iterator[EffectTest]:
    r"""The test of an interaction of two variables with few levels; nothing for other variables.

    Args:
        effects: Standardised random effects.
        j: Index of the effect.
        first: A variable.
        second: Another one.
    """
    if not (first.levels and second.levels):
        return
    used = (
        known_values(first)
        & known_values(second)
        & (effects.reliability[:, j].numpy() > DEPENDENCE.min_reliability)
    )
    cells = [
        ((first.values == a) & (second.values == b) & used).sum()
        for a in first.levels
        for b in second.levels
    ]
    a, b = columns_of(first, used), columns_of(second, used)
    products = (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
    num_base = 1 + a.shape[1] + b.shape[1]
    too_few = used.sum() < num_base + products.shape[1] + DEPENDENCE.min_spare
    if too_few or min(cells) < DEPENDENCE.min_in_cell:
        return
    root = effects.reliability[:, j].sqrt().numpy()[used]
    y = effects.means[:, j].numpy()[used] / root
    design = root[:, None] * np.column_stack([np.ones(len(a)), a, b, products])
    p_value, name = regression_p_value(y, design, num_base), effects.names[j]
    slopes, *_ = np.linalg.lstsq(design, y, rcond=None)
    size = float(slopes[-1] * effects.sd[:, j].mean())
    words = (
        f"the dependence of {name} on {first.name} differs by {second.name} (p = {p_value:.1g}), "
        f"by {size:+.2f} between their last levels"
    )
    yield EffectTest("interaction", name, f"{first.name} and {second.name}", p_value, size, words)


def neighbours(effects: RandomEffects, j: int) -> Iterator[EffectTest]:
    r"""The test that individuals next to each other in the file are not alike in one effect.

    Args:
        effects: Standardised random effects.
        j: Index of the effect.
    """
    reliability = effects.reliability[:, j].numpy()
    used = reliability > DEPENDENCE.min_reliability
    num = int(used.sum())
    if num < DEPENDENCE.min_spread:
        return
    root = np.sqrt(reliability[used])
    y = effects.means[:, j].numpy()[used] / root
    scores = normal_scores(y)
    ratio = float((np.diff(scores) ** 2).sum() / (scores**2).sum())
    # The moments of independent normal scores, from those of all orders of the ranks.
    z = (2 - ratio) * math.sqrt((num**2 - 1) / (4 * (num - 2)))
    by_blocks = block_p_value(y, root)
    p_value = min(1.0, 2 * min(by_blocks, float(scipy.stats.norm.sf(z))))
    name = effects.names[j]
    words = (
        f"{name} of neighbours in the order of the file is alike (p = {p_value:.1g}; correlation "
        f"of two about {1 - ratio / 2:+.2f})"
    )
    yield EffectTest("neighbours", name, "the order in the file", p_value, 1 - ratio / 2, words)


def spread(effects: RandomEffects, j: int, variable: Variable) -> Iterator[EffectTest]:
    r"""The test of a variance that depends on a variable, if there are enough individuals.

    Args:
        effects: Standardised random effects.
        j: Index of the effect.
        variable: The variable.
    """
    used = known_values(variable)
    used &= effects.reliability[:, j].numpy() > DEPENDENCE.min_reliability
    x = variable.values[used]
    counts = [int((x == level).sum()) for level in variable.levels]
    if used.sum() < DEPENDENCE.min_spread or min(counts, default=DEPENDENCE.min_spread) < (
        DEPENDENCE.min_in_level
    ):
        return
    y = effects.means[:, j].numpy()[used] / effects.reliability[:, j].sqrt().numpy()[used]
    design = np.column_stack([np.ones(len(y)), columns_of(variable, used)])
    if variable.levels:
        center = np.zeros(len(y))
        for level in variable.levels:
            center[x == level] = np.median(y[x == level])
    else:
        center = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    distance = np.sqrt(np.abs(y - center))  # nearly normal, and few far ones do not decide
    p_value, name = regression_p_value(distance, design), effects.names[j]
    is_normal = j not in effects.not_normal
    if variable.levels and is_normal and effects.reliability[:, j].mean() > DEPENDENCE.min_informed:
        by_variance = scipy.stats.bartlett(*(y[x == level] for level in variable.levels)).pvalue
        p_value = min(1.0, 2 * min(p_value, float(by_variance)))
    slopes, *_ = np.linalg.lstsq(design, distance, rcond=None)
    size = float(slopes[-1])
    words = (
        f"the variance of {name} depends on {variable.name} (p = {p_value:.1g}): it "
        f"{'grows' if size > 0 else 'falls'} with it"
    )
    yield EffectTest("spread", name, variable.name, p_value, size, words)
