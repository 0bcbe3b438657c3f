r"""Tests of the random effects: are they what the population model says?

With the posterior means :math:`\bar e_{ij}` of the standardised random effects and their
reliabilities :math:`r_{ij}` (:mod:`pyro_amortized.diagnostics.effects.random_effects`):

- *Dependence on a variable x* (covariates that the model uses or not, the first dose, the order in
  the file). The posterior mean is the slope of the log likelihood of the individual in the mean of
  its parameter; the variance of the slope is :math:`r_{ij}`. So :math:`\bar e_{ij} / \sqrt{r_{ij}}`
  is regressed on :math:`\sqrt{r_{ij}}\,(1, x_i)` and the t test (F test for several levels) of x is
  the score test of a dependence of the mean on x. A quantity is tested by the normal scores of its
  ranks, so that no single value decides, and by their squares. Two variables with few levels are
  also tested for an interaction, and the variance of the effect for a dependence on each variable
  (:mod:`pyro_amortized.diagnostics.effects.effect_dependence`).
  Neighbours in the order of the file must not be alike.
- *Correlation*: the posterior mean of the product of two effects, which the model says are
  uncorrelated, is the slope in their correlation, with the information :math:`r_{ij} r_{ik}`. Its
  sum is tested as the correlation coefficient of independent pairs is.
- *Distribution*: the mean by a t test, normality (Shapiro and Wilk) and outliers of posterior
  draws, and normality of the posterior means of individuals with many data. An outlier is compared
  with the median and the median absolute deviation of the draws of all individuals, so that it
  cannot hide itself. Several draws of each individual give several p-values; their geometric mean
  times e is a p-value again.

In a linear Gaussian model the tests of variables are exact but for the estimation of the
population, which makes all tests a little conservative.

References:
    Vovk, Wang (2020), Combining p-values via averaging, Biometrika 107; Lavielle, Ribba (2016).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas
import scipy.stats

from ...cohort import RECORDED, dropout_of
from ...numerics.robust_scale import MAD_TO_SD
from ...population.results.fit_result import PopulationFit
from ...sampling.individuals import IndividualPosteriors
from ..check_results import combined_p_value
from ..refused_data import REFUSALS
from ..result_selection import individuals_of, outcome_kinds
from ..variables.compared_variables import variables_of_design, variables_of_recording
from ..variables.used_covariates import names_of_used_covariates
from .effect_dependence import (
    DependenceKind,
    EffectTest,
    dependence,
    interaction,
    neighbours,
    spread,
)
from .joint_dependence import joint_dependence
from .random_effects import RandomEffects, standardized_effects


@dataclass(frozen=True)
class EffectTestSettings:
    r"""Limits of the tests.

    Args:
        min_individuals: Fewest individuals that are tested.
        min_reliability: Smallest mean reliability of an effect that is tested: with less, its draws
            are those of the population whatever the data.
        scale_share: Degrees of freedom of the median absolute deviation of normal draws, as a part
            of their number: its asymptotic efficiency.
        min_information: Smallest sum over the individuals of the products of the reliabilities of
            two effects whose correlation is tested: as many pairs of known effects say as much.
            With fewer the score of the correlation is not nearly normal.
        max_correlation: Largest size of a correlation that is reported, a one-step estimate.
        min_informed: Reliability of an individual from which its posterior mean, in its standard
            deviations, is nearly normal also in nonlinear models.
        share_informed: Smallest share of such individuals of which the posterior means are tested.
        max_shapiro: Most individuals of the test of normality, whose p-values are not known beyond.
        named_outlier: P-value among all individuals below which each outlier is named; the one
            with the smallest is always a test.
    """

    min_individuals: int = 8
    min_reliability: float = 0.05
    scale_share: float = 0.37
    min_information: float = 3.0
    max_correlation: float = 0.99
    min_informed: float = 0.7
    share_informed: float = 0.5
    max_shapiro: int = 5000
    named_outlier: float = 0.01


DEFAULTS = EffectTestSettings()


@dataclass(frozen=True)
class RandomEffectTests:
    r"""All tests of the random effects. Made by :func:`random_effect_tests`.

    Args:
        tests: The tests.
        skipped: Why effects were not tested, by name.
    """

    tests: tuple[EffectTest, ...]
    skipped: dict[str, str]

    def of(self, *kinds: DependenceKind) -> list[EffectTest]:
        """The tests of some kinds."""
        return [test for test in self.tests if test.kind in kinds]

    def table(self) -> pandas.DataFrame:
        """One row per test, the smallest p-value first."""
        rows = [(t.kind, t.effect, t.against, t.p_value, t.size) for t in self.tests]
        names = ["kind", "effect", "against", "p", "size"]
        return pandas.DataFrame(rows, columns=names).sort_values("p", ignore_index=True)


def random_effect_tests(
    result: PopulationFit | IndividualPosteriors, *, seed: int = 0
) -> RandomEffectTests:
    r"""Test the random effects of a fit against covariates, each other, and their distribution.

    Args:
        result: A fit, or individual posteriors at the estimates.
        seed: Seed of the draws.

    Returns:
        The tests; ``print(tests.table())`` shows the smallest p-values first. No test is made of
        fewer than eight individuals.
    """
    individuals = individuals_of(result)
    cohort = individuals.cohort
    if len(cohort) < DEFAULTS.min_individuals:
        few = f"{len(cohort)} individuals are too few"
        return RandomEffectTests((), dict.fromkeys(individuals.structure.latent_names, few))
    effects = standardized_effects(individuals, seed)
    informed = (effects.reliability.mean(0) >= DEFAULTS.min_reliability).tolist()
    skipped = {
        name: "the data say nothing about it"
        for name, is_informed in zip(effects.names, informed, strict=True)
        if not is_informed
    }
    tested = [j for j, is_informed in enumerate(informed) if is_informed]
    known = {*_used(individuals)}
    tests: list[EffectTest] = []
    of_design = variables_of_design(cohort)
    of_recording = variables_of_recording(cohort, _unexplained(individuals))
    for j in tested:
        for variable in of_design:
            tests += dependence(effects, j, variable, "variable")
            tests += spread(effects, j, variable)
        tests += neighbours(effects, j)
        for first, second in itertools.combinations(of_design, 2):
            tests += interaction(effects, j, first, second)
        for variable in of_recording:
            tests += dependence(effects, j, variable, "recording")
        tests += _distribution(effects, j, cohort.ids)
        tests += [x for k in tested if k < j for x in _correlation(effects, j, k)]
    for variable in of_design:
        tests += joint_dependence(effects, tested, variable)
    # A test of a curve is against "weight, curved".
    named = [t._replace(is_used=t.against.removesuffix(", curved") in known) for t in tests]
    return RandomEffectTests(tuple(named), skipped)


def _used(individuals: IndividualPosteriors) -> list[str]:
    """Names of the covariates that the model uses; empty where it has no density or refuses other
    values.
    """
    if not individuals.structure.has_density:
        return []
    try:
        return names_of_used_covariates(individuals)
    except REFUSALS:
        return []


def _unexplained(individuals: IndividualPosteriors) -> list[str]:
    """The series of values whose recording the model does not describe."""
    cohort, kinds = individuals.cohort, outcome_kinds(individuals.structure)
    return [
        name
        for name, kind in kinds.items()
        if kind != "event"
        and f"{name}{RECORDED}" not in kinds
        and not name.endswith(RECORDED)
        and dropout_of(cohort, name) not in kinds
    ]


def _correlation(effects: RandomEffects, j: int, k: int) -> Iterator[EffectTest]:
    """The test of a correlation of two effects, if the data say enough about both."""
    slopes = effects.products[:, j, k].numpy()
    information = (effects.reliability[:, j] * effects.reliability[:, k]).numpy()
    total = float(information.sum())
    if total < DEFAULTS.min_information:
        return
    most = DEFAULTS.max_correlation
    size = float(np.clip(slopes.sum() / max(total, 1e-300), -most, most))
    # The test of a correlation coefficient of as many pairs as there are equally informed ones,
    # in units of the standard deviations that the posterior means have.
    pairs = max(3.0, total**2 / max(float((information**2).sum()), 1e-300))
    both = effects.means[:, [j, k]].square().sum(0) / effects.reliability[:, [j, k]].sum(0)
    unit = math.sqrt(max(total * pairs * float(both.prod()), 1e-300))
    observed = float(np.clip(slopes.sum() / unit, -most, most))
    statistic = observed * math.sqrt((pairs - 2) / (1 - observed**2))
    p_value = 2 * float(scipy.stats.t.sf(abs(statistic), pairs - 2))
    first, second = effects.names[k], effects.names[j]
    words = (
        f"{first} and {second} are correlated (p = {p_value:.1g}) by about {size:+.2f} beyond what "
        "the model says"
    )
    yield EffectTest("correlation", second, first, p_value, size, words)


def _distribution(effects: RandomEffects, j: int, ids: tuple[str, ...]) -> Iterator[EffectTest]:
    """Mean, normality and outliers of one effect."""
    name, draws = effects.names[j], effects.draws[..., j].numpy()
    y, reliability = effects.means[:, j].numpy(), effects.reliability[:, j].numpy()
    mean = float(y.sum() / max(reliability.sum(), 1e-300))
    p_value = float(scipy.stats.ttest_1samp(y, 0.0).pvalue)
    words = (
        f"the mean of {name} lies {mean:+.2f} standard deviations from that of the population "
        f"(p = {p_value:.1g})"
    )
    yield EffectTest("mean", name, "", p_value, mean, words)
    if draws.shape[1] <= DEFAULTS.max_shapiro:
        p_value = combined_p_value([float(scipy.stats.shapiro(x).pvalue) for x in draws])
        if j not in effects.not_normal:
            p_value = min(1.0, 2 * min(p_value, _means_p_value(y, reliability)))
        words = f"the random effects of {name} are not normally distributed (p = {p_value:.1g})"
        yield EffectTest("normality", name, "", p_value, math.nan, words)
    p_values, distances = _outliers(draws)
    named = {int(p_values.argmin()), *np.flatnonzero(p_values < DEFAULTS.named_outlier).tolist()}
    for i in sorted(named, key=lambda i: float(p_values[i])):
        words = (
            f"{name} of individual {ids[i]} lies {abs(distances[i]):.1f} standard deviations "
            f"{'above' if distances[i] > 0 else 'below'} those of the others "
            f"(p = {p_values[i]:.1g} among all individuals)"
        )
        yield EffectTest("outlier", name, ids[i], float(p_values[i]), float(distances[i]), words)


def _means_p_value(means: np.ndarray, reliability: np.ndarray) -> float:
    """P-value of the normality of the posterior means of individuals with many data, which show
    groups that the noise of the draws hides; one where these are few.
    """
    informed = reliability >= DEFAULTS.min_informed
    if informed.sum() < max(DEFAULTS.min_individuals, DEFAULTS.share_informed * len(means)):
        return 1.0
    scores = means[informed] / np.sqrt(reliability[informed])
    return float(scipy.stats.shapiro(scores).pvalue)


def _outliers(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P-values of all individuals, with Bonferroni's factor for their number, and their distances
    from the median in robust standard deviations; draws of shape ``(draw, individual)``.

    Two tests: by the median absolute deviation, which several outliers do not disturb, and by the
    mean and variance of the other individuals, which is exact for few normal draws.
    """
    num = draws.shape[1]
    center = np.median(draws, 1, keepdims=True)
    spread = MAD_TO_SD * np.median(np.abs(draws - center), 1, keepdims=True)
    distance = (draws - center) / np.maximum(spread, 1e-300)
    by_median = scipy.stats.t.sf(np.abs(distance), max(2.0, DEFAULTS.scale_share * num))
    residual = draws - draws.mean(1, keepdims=True)
    total = (residual**2).sum(1, keepdims=True)
    others = np.maximum((total - residual**2 * num / (num - 1)) / (num - 2), 1e-300)
    deleted = np.abs(residual) * math.sqrt(num / (num - 1)) / np.sqrt(others)
    tails = np.stack([by_median, scipy.stats.t.sf(deleted, num - 2)])
    log_p = np.log(np.maximum(2 * tails, 1e-300)).mean(1).min(0)
    return np.minimum(1.0, 2 * num * math.e * np.exp(log_p)), distance.mean(0)
