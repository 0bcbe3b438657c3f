"""Regression tests of one quantity per individual against a variable of the cohort."""

import numpy as np
import scipy.stats

from .compared_variables import Variable


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


def columns_of(variable: Variable, known: np.ndarray) -> np.ndarray:
    """Columns of a regression for some individuals, shape ``(individual, column)``: all levels but
    the first, or the normal scores of a quantity.
    """
    x = variable.values[known]
    if variable.levels:
        return np.column_stack([x == level for level in variable.levels[1:]]).astype(float)
    return normal_scores(x)[:, None]


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
