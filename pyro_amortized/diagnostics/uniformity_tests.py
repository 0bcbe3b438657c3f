r"""Are numbers uniform? Simultaneous bands for empirical distribution functions, and tests.

The empirical distribution function of N uniform numbers lies, at each point z, in a central
interval of Binomial(N, z) / N. The smallest of its pointwise tail probabilities over a grid,
simulated for N uniform numbers, says how small it gets by chance: that calibrates a band that holds
the whole curve with a given probability, and a p-value.

References:
    Säilynoja, Bürkner, Vehtari (2022), Graphical test for discrete uniformity and its applications
    in goodness-of-fit evaluation and multiple sample comparison.
"""

import functools

import numpy as np
from scipy.stats import binom, f

GRID, NUM_SIMULATIONS = 60, 4000


def _grid() -> np.ndarray:
    return np.linspace(0, 1, GRID + 2)[1:-1]


def ecdf(levels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Empirical distribution function at some points, shape ``(point, *)`` of levels ``(value,
    *)``.
    """
    return np.stack([(levels <= z).mean(0) for z in points])


def _least_tail(counts: np.ndarray, num: int) -> np.ndarray:
    """Smallest two-sided tail probability over the grid of counts ``(point, *)``."""
    z = _grid().reshape(-1, *[1] * (counts.ndim - 1))
    below, above = binom.cdf(counts, num, z), binom.sf(counts - 1, num, z)
    least: np.ndarray = 2 * np.minimum(below, above).min(0)
    return least


@functools.lru_cache(maxsize=32)
def _by_chance(num: int) -> np.ndarray:
    """The smallest tail probability of uniform numbers, simulated, sorted."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(NUM_SIMULATIONS // 200):
        counts = num * ecdf(rng.random((num, 200)), _grid())
        found.append(_least_tail(counts.round(), num))
    return np.sort(np.concatenate(found))


def simultaneous_band(num: int, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""A band that holds the whole empirical distribution function of uniform numbers.

    Args:
        num: Number of values.
        level: Probability that the curve lies inside everywhere.

    Returns:
        Points, lower and upper bound of the distribution function there.

    Example:
        >>> points, low, high = simultaneous_band(100)
        >>> bool((low <= points).all() and (points <= high).all())
        True
    """
    tail = float(np.quantile(_by_chance(num), 1 - level))
    points = _grid()
    low, high = (binom.ppf(p, num, points) / num for p in (tail / 2, 1 - tail / 2))
    return points, low, high


def uniform_p_value(levels: np.ndarray) -> np.ndarray:
    r"""P-values of uniform distribution, of each column of levels between 0 and 1.

    Args:
        levels: Shape ``(value, column)``.

    Example:
        >>> even = np.linspace(0.005, 0.995, 100)[:, None]
        >>> bool(uniform_p_value(even)[0] > 0.9), bool(uniform_p_value(even**2)[0] < 0.01)
        (True, True)
    """
    num = len(levels)
    least = _least_tail((num * ecdf(levels, _grid())).round(), num)
    chance = _by_chance(num)
    p_values: np.ndarray = (np.searchsorted(chance, least, side="right") + 1) / (len(chance) + 1)
    return p_values.clip(max=1.0)


def independence_p_value(levels: np.ndarray, features: np.ndarray) -> float:
    r"""P-value of levels that do not depend on features, by the F test of a linear regression.

    Args:
        levels: Between 0 and 1, shape ``(value,)``.
        features: Shape ``(value, feature)``; constant ones are left out.
    """
    x = features[:, features.std(0) > 1e-12]
    if x.shape[1] == 0 or len(levels) < x.shape[1] + 10:
        return 1.0
    x = (x - x.mean(0)) / x.std(0)
    design = np.column_stack([np.ones(len(x)), x])
    solution, *_ = np.linalg.lstsq(design, levels, rcond=None)
    residual = levels - design @ solution
    explained = ((levels - levels.mean()) ** 2).sum() - (residual**2).sum()
    freedom = len(x) - design.shape[1]
    statistic = explained / x.shape[1] / max((residual**2).sum() / freedom, 1e-300)
    return float(f.sf(statistic, x.shape[1], freedom))
