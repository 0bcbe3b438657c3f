"""Regressions of one quantity per individual on a variable of the cohort: tests, and slopes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats

from .compared_variables import Variable

MIN_ALONE = 3  # fewest individuals of a level that is compared with all others


def normal_scores(x: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks: no single value decides."""
    scores: np.ndarray = scipy.stats.norm.ppf((scipy.stats.rankdata(x) - 0.5) / len(x))
    return scores


def standardized(x: np.ndarray) -> np.ndarray:
    """Values in standard deviations from their mean."""
    scaled: np.ndarray = (x - x.mean()) / max(float(x.std()), 1e-300)
    return scaled


def known_values(variable: Variable) -> np.ndarray:
    """Which individuals have a level or a finite value of the variable."""
    if variable.levels:
        return np.isin(variable.values, variable.levels)
    return np.isfinite(variable.values)


def known_among(variable: Variable, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of some individuals have a level or a finite value, shape ``(row,)``, and the same
    individuals as flags of all.
    """
    known = known_values(variable)[rows]
    return known, np.isin(np.arange(len(variable.values)), rows[known])


def columns_of(variable: Variable, known: np.ndarray) -> np.ndarray:
    """Columns of a regression for some individuals, shape ``(individual, column)``: all levels but
    the first, or the normal scores of a quantity.
    """
    x = variable.values[known]
    if variable.levels:
        return np.column_stack([x == level for level in variable.levels[1:]]).astype(float)
    return normal_scores(x)[:, None]


def dependence_p_value(
    variable: Variable, known: np.ndarray, p_value_of: Callable[[np.ndarray], float]
) -> float:
    """P-value of a dependence on a variable: on all its levels together or, of three levels or
    more, on one of them, of which the tests have more power where only one differs.

    Args:
        variable: The variable.
        known: Individuals that are used, of all.
        p_value_of: P-value of the columns of a regression, shape ``(individual, column)``.
    """
    p_value = p_value_of(columns_of(variable, known))
    if len(variable.levels) < 3:
        return p_value
    x = variable.values[known]
    single = [x == level for level in variable.levels if (x == level).sum() >= MIN_ALONE]
    alone = [p_value_of(column[:, None].astype(float)) for column in single]
    return min(1.0, 2 * min(p_value, len(alone) * min(alone, default=1.0)))


def regression_p_value(y: np.ndarray, design: np.ndarray, num_base: int = 1) -> float:
    """P-value of all columns of a regression but the first ones, by the F test."""

    def residual(columns: np.ndarray) -> float:
        coefficients, *_ = np.linalg.lstsq(columns, y, rcond=None)
        return float(((y - columns @ coefficients) ** 2).sum())

    base = design[:, :num_base]
    rank = int(np.linalg.matrix_rank(design))
    freedom, added = len(y) - rank, rank - int(np.linalg.matrix_rank(base))
    if added < 1 or freedom < 1:
        return 1.0
    smaller, larger = residual(design), residual(base)
    statistic = (larger - smaller) / added / max(smaller / freedom, 1e-300)
    return float(scipy.stats.f.sf(statistic, added, freedom))


class Contrast(NamedTuple):
    r"""Where an effect differs most, or along which quantity.

    Args:
        slope: The difference or the slope, in standard deviations of the effect.
        where: The same in words.
        gain: Reduction of the sum of squares.
    """

    slope: float
    where: str
    gain: float


def contrast(y: np.ndarray, root: np.ndarray, variable: Variable, used: np.ndarray) -> Contrast:
    r"""The level of a variable that differs most from the others, or the slope over a quantity.

    Args:
        y: Posterior means of an effect divided by the roots of their reliabilities, shape
            ``(individual,)`` for the individuals that are used.
        root: The roots of their reliabilities, same shape.
        variable: The variable.
        used: Which individuals are used, of all.
    """
    x = variable.values[used]
    if not variable.levels:
        where = f"per standard deviation ({x.std():.3g}) of {variable.name}"
        return _regressed(y, root, standardized(x), where)
    if len(variable.levels) == 2:
        low, high = (variable.level_name(level) for level in variable.levels)
        where = f"where {variable.name} is {high} than where it is {low}"
        return _regressed(y, root, x == variable.levels[1], where)
    found = [
        _regressed(
            y,
            root,
            x == level,
            f"where {variable.name} is {variable.level_name(level)} than elsewhere",
        )
        for level in variable.levels
    ]
    return max(found, key=lambda c: c.gain)


def _regressed(y: np.ndarray, root: np.ndarray, column: np.ndarray, where: str) -> Contrast:
    design = np.column_stack([root, root * column])
    slopes, *_ = np.linalg.lstsq(design, y, rcond=None)
    mean, *_ = np.linalg.lstsq(design[:, :1], y, rcond=None)
    gain = ((y - design[:, :1] @ mean) ** 2).sum() - ((y - design @ slopes) ** 2).sum()
    return Contrast(float(slopes[-1]), where, float(gain))
