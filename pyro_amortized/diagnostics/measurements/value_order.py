r"""Whether equal or similar values of an individual stand next to each other: an exact test.

Where the model gives all values of an individual the same distribution (its parameters do not
change over time), any order of them is equally likely, whatever the parameters. With the deviations
x of n values from their mean, the sum of the products of neighbours has the expectation and the
variance

.. math:: E T = -\frac{S_2}{n}, \qquad
    E T^2 = \frac{S_2^2 - S_4}{n} + \frac{2 (2 S_4 - S_2^2)}{n (n - 1)}
        + \frac{3 S_2^2 - 6 S_4}{n (n - 1)}, \qquad S_k = \sum_j x_j^k,

over all orders. The sum over the individuals is nearly normal. Nothing is estimated, so a random
effect that is fitted to the series takes none of the power.

References:
    Wald, Wolfowitz (1943), An exact test for randomness in the non-parametric case based on serial
    correlation, Annals of Mathematical Statistics 14.
"""

import numpy as np
import scipy.stats

MIN_INDIVIDUALS = 8  # fewest individuals whose values differ, for a normal sum
MIN_VALUES = 3  # fewest values of an individual, of which the order says something
SAME = 1e-6  # relative difference of predictions that are the same


def order_p_value(rows: np.ndarray, values: np.ndarray, predicted: np.ndarray) -> float | None:
    """P-value of the order of the values of all individuals; None where their distributions change
    over time, or where too few individuals have values that differ.

    Args:
        rows: Row of the individual of each value, values in the order of their times.
        values: The values.
        predicted: Expected values given draws of the individual parameters, shape ``(draw,
            value)``.
    """
    total, variance, number = 0.0, 0.0, 0
    for row in np.unique(rows):
        own, expected = values[rows == row], predicted[:, rows == row]
        if not (np.ptp(expected, axis=1) <= SAME * np.abs(expected).max(axis=1)).all():
            return None
        if len(own) < MIN_VALUES or np.ptp(own) == 0:
            continue
        x = own - own.mean()
        mean, square = order_moments(x)
        total += float(x[1:] @ x[:-1]) - mean
        variance += square - mean**2
        number += 1
    if number < MIN_INDIVIDUALS or variance <= 0:
        return None
    return float(2 * scipy.stats.norm.sf(abs(total) / variance**0.5))


def order_moments(x: np.ndarray) -> tuple[float, float]:
    """Expectation of the sum of the products of neighbours, and of its square, over all orders of
    values whose mean is zero.

    Example:
        >>> order_moments(np.array([-1.0, 0.0, 1.0]))
        (-0.6666666666666666, 0.6666666666666666)
    """
    n, s2, s4 = len(x), float(np.square(x).sum()), float((x**4).sum())
    both = (s2**2 - s4) / n
    shared = 2 * (2 * s4 - s2**2) / (n * (n - 1))
    apart = (3 * s2**2 - 6 * s4) / (n * (n - 1))
    return -s2 / n, both + shared + apart
