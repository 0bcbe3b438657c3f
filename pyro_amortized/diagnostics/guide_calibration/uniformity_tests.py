r"""Tests of uniform numbers, and simultaneous bands for empirical distribution functions.

For :math:`N` uniform numbers, the empirical distribution function :math:`F_N(z)` at a point
:math:`z` has the distribution Binomial(N, z) / N. The statistic is the smallest two-sided tail
probability over a grid of points,

.. math:: t = \min_z \, 2 \min\{P(B_z \le N F_N(z)),\, P(B_z \ge N F_N(z))\},
          \qquad B_z \sim \mathrm{Binomial}(N, z) .

Its distribution is simulated with uniform numbers. A quantile of it gives a band that contains the
whole curve with a given probability, and its distribution function gives p-values.

References:
    Säilynoja, Bürkner, Vehtari (2022), Graphical test for discrete uniformity and its applications
    in goodness-of-fit evaluation and multiple sample comparison.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from ..variables.variable_tests import regression_p_value


@dataclass(frozen=True)
class UniformitySettings:
    r"""Resolution of the tests.

    Args:
        num_points: Points of the grid, equally spaced between 0 and 1.
        num_simulations: Simulated sets of uniform numbers.
        simulations_per_call: Sets that are simulated together, which limits memory.
        min_feature_sd: Standard deviation below which a feature counts as constant.
        min_spare_values: A regression is tested if there are this many values more than features.
    """

    num_points: int = 60
    num_simulations: int = 4000
    simulations_per_call: int = 200
    min_feature_sd: float = 1e-12
    min_spare_values: int = 10


DEFAULTS = UniformitySettings()


def _grid() -> np.ndarray:
    return np.linspace(0, 1, DEFAULTS.num_points + 2)[1:-1]


def ecdf(levels: np.ndarray, points: np.ndarray) -> np.ndarray:
    r"""Empirical distribution function of each column.

    Args:
        levels: Values, shape ``(value, *)``.
        points: Where the function is evaluated, shape ``(point,)``.

    Returns:
        Shape ``(point, *)``.
    """
    return np.stack([(levels <= z).mean(0) for z in points])


def _smallest_tail(counts: np.ndarray, num: int) -> np.ndarray:
    """Smallest two-sided tail probability over the grid, of counts ``(point, *)``."""
    z = _grid().reshape(-1, *[1] * (counts.ndim - 1))
    below, above = binom.cdf(counts, num, z), binom.sf(counts - 1, num, z)
    smallest: np.ndarray = 2 * np.minimum(below, above).min(0)
    return smallest


@functools.lru_cache(maxsize=32)
def _simulated_statistics(num: int) -> np.ndarray:
    """Sorted statistics of simulated sets of ``num`` uniform numbers."""
    rng, size = np.random.default_rng(0), DEFAULTS.simulations_per_call
    statistics = []
    for _ in range(DEFAULTS.num_simulations // size):
        counts = num * ecdf(rng.random((num, size)), _grid())
        statistics.append(_smallest_tail(counts.round(), num))
    return np.sort(np.concatenate(statistics))


def simultaneous_band(num: int, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""A band that contains the whole empirical distribution function of uniform numbers.

    Args:
        num: Number of values.
        level: Probability that the function lies inside the band at all points.

    Returns:
        Points, lower bounds and upper bounds, each of shape ``(point,)``.

    Example:
        >>> points, low, high = simultaneous_band(100)
        >>> bool((low <= points).all() and (points <= high).all())
        True
    """
    tail = float(np.quantile(_simulated_statistics(num), 1 - level))
    points = _grid()
    low, high = (binom.ppf(p, num, points) / num for p in (tail / 2, 1 - tail / 2))
    return points, low, high


def uniform_p_value(levels: np.ndarray) -> np.ndarray:
    r"""P-value of a uniform distribution, for each column.

    Args:
        levels: Values between 0 and 1, shape ``(value, column)``.

    Returns:
        P-values, shape ``(column,)``.

    Example:
        >>> even = np.linspace(0.005, 0.995, 100)[:, None]
        >>> bool(uniform_p_value(even)[0] > 0.9), bool(uniform_p_value(even**2)[0] < 0.01)
        (True, True)
    """
    num = len(levels)
    statistic = _smallest_tail((num * ecdf(levels, _grid())).round(), num)
    simulated = _simulated_statistics(num)
    rank = np.searchsorted(simulated, statistic, side="right")
    # Below the smallest simulated one, the sum of the tail probabilities at all points bounds it.
    p_values: np.ndarray = np.minimum((rank + 1) / (len(simulated) + 1), len(_grid()) * statistic)
    return p_values.clip(max=1.0)


def independence_p_value(levels: np.ndarray, features: np.ndarray) -> float:
    r"""P-value of levels that do not depend on features, by the F test of a linear regression.

    Args:
        levels: Values between 0 and 1, shape ``(value,)``.
        features: Shape ``(value, feature)``; constant features are left out.

    Returns:
        The p-value; one if no feature varies or there are too few values for a test.
    """
    x = features[:, features.std(0) > DEFAULTS.min_feature_sd]
    if x.shape[1] == 0 or len(levels) < x.shape[1] + DEFAULTS.min_spare_values:
        return 1.0
    x = (x - x.mean(0)) / x.std(0)
    design = np.column_stack([np.ones(len(x)), x])
    return regression_p_value(levels, design)
