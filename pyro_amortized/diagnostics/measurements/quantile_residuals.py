r"""Residuals of values given parameters, normal whatever their distribution.

With the distribution function F of a value given the parameters, :math:`\Phi^{-1}(F(y))` is
standard normal under the right model. A normal distribution gives the weighted residual
:math:`(y - f) / s`. A value at a limit of quantification, a rounded one, a count or a category is
only known to lie in an interval; its residual is drawn there. The distribution function of counts
and categories is a sum of their probabilities.

References:
    Dunn, Smyth (1996), Randomized quantile residuals, Journal of Computational and Graphical
    Statistics 5.
"""

import math
from typing import Any

import numpy as np
import scipy.special
import torch
from torch import Generator, Tensor

from ...model import values_by_series
from ...nlme.censored_distributions import Censored, Rounded, log_cdf, log_survival
from ...sampling.individuals import IndividualPosteriors

MIN_INTERVAL = 1e-6  # probability below which an interval counts as a value
MAX_COUNT = 300  # largest count whose distribution function is summed up


def quantile_residuals(
    individuals: IndividualPosteriors, series: str, places: Tensor, generator: Generator
) -> Tensor | None:
    r"""Residuals of a series of single values: continuous ones, counts or categories.

    Args:
        individuals: Individual posteriors.
        series: Name of the series.
        places: Individual parameters, unconstrained, shape ``(draw, individual, latent)``.
        generator: Source of the residuals of values that are only known to lie in an interval.

    Returns:
        Shape ``(draw, individual, time)``; None where the distribution function is not known.
    """

    def of_value(distribution: Any, value: Tensor) -> Tensor | None:
        try:
            bounds = _bounds(distribution, value)
        except (NotImplementedError, AttributeError):
            return None
        if isinstance(bounds, Tensor):
            return bounds.expand_as(value)
        uniform = torch.rand(value.shape, generator=generator, dtype=torch.float64)
        lower, upper = (x.expand_as(value) for x in bounds)
        return _between(lower, upper, uniform)

    parts = (individuals.structure, individuals.cohort, places, individuals.population)
    return values_by_series(*parts, of_value).get(series)


def _bounds(distribution: Any, value: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The normal score of a value, or the two between which it lies."""
    if isinstance(distribution, torch.distributions.Normal):
        return (value - distribution.loc) / distribution.scale
    if distribution.support.is_discrete:
        return _discrete(distribution, value)
    if isinstance(distribution, Rounded):
        half = distribution.width / 2
        return _score(distribution.base, value - half), _score(distribution.base, value + half)
    if not isinstance(distribution, Censored):
        return _score(distribution, value)
    reached_low, reached_high = distribution.limits
    below, above = value <= reached_low, value >= reached_high
    score = _score(distribution.base, value)
    floor, low, high = (
        _score(distribution.base, torch.where(x.isfinite(), x, value))
        for x in (distribution.floor, distribution.low, distribution.high)
    )
    floor = torch.where(distribution.floor.isfinite(), floor, -torch.inf)
    lower = torch.where(below, floor, torch.where(above, high, score))
    upper = torch.where(below, low, torch.where(above, torch.inf, score))
    return lower, upper


def _discrete(distribution: Any, value: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of the probabilities of a smaller value, and of this one or a smaller one."""
    largest = float(value.max())
    whole = bool((value == value.round()).all()) and float(value.min()) >= 0
    if not whole or largest > MAX_COUNT:
        raise NotImplementedError
    below = torch.zeros(value.shape, dtype=torch.float64)
    own = torch.zeros_like(below)
    for count in range(int(largest) + 1):
        probability = distribution.log_prob(torch.full_like(value, float(count))).exp()
        below = below + torch.where(value > count, probability, 0.0)
        own = torch.where(value == count, probability, own)
    upper = (below + own).clamp(max=1.0)
    return torch.special.ndtri(below.clamp(max=1.0)), torch.special.ndtri(upper)


def _score(distribution: Any, value: Tensor) -> Tensor:
    """The normal score of a value, from the nearer tail."""
    if isinstance(distribution, torch.distributions.Normal):
        return (value - distribution.loc) / distribution.scale
    below, above = log_cdf(distribution, value), log_survival(distribution, value)
    smaller = torch.special.ndtri(below.exp().clamp(min=1e-300))
    larger = -torch.special.ndtri(above.exp().clamp(min=1e-300))
    return torch.where(below < above, smaller, larger)


def normal_moments(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and mean square of a standard normal variable given that it lies between two bounds.

    Args:
        lower: Lower bounds.
        upper: Upper bounds, same shape; equal ones stand for a known value.

    Example:
        >>> normal_moments(torch.tensor([0.0]), torch.tensor([torch.inf]))
        (tensor([0.7979]), tensor([1.]))
    """
    probability = torch.special.ndtr(upper) - torch.special.ndtr(lower)
    wide = probability > MIN_INTERVAL
    a, b = (torch.where(x.isfinite(), x, 0.0) for x in (lower, upper))
    at_a, at_b = (torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi) for x in (lower, upper))
    share = torch.where(wide, probability, 1.0)
    middle = torch.where(wide, 0.0, (a + b) / 2)
    first = torch.where(wide, (at_a - at_b) / share, middle)
    second = torch.where(wide, 1 + (a * at_a - b * at_b) / share, middle.square())
    return first, second


def expected_scores(values: Tensor, simulated: Tensor) -> Tensor:
    """Expected normal scores of the ranks of values ``(individual, time)`` among simulations; those
    of equal values are between two ranks.

    Args:
        values: The data.
        simulated: Simulations, shape ``(simulation, individual, time)``.
    """
    least = 0.5 / len(simulated)
    shares = [(simulated < values), (simulated <= values)]
    below, upto = (x.double().mean(0).clamp(least, 1 - least) for x in shares)
    return normal_moments(torch.special.ndtri(below), torch.special.ndtri(upto))[0]


def _between(lower: Tensor, upper: Tensor, uniform: Tensor) -> Tensor:
    """Standard normal variables given that they lie between two bounds."""
    # In the upper tail both bounds are mirrored, where their probabilities are not rounded to one.
    mirrored = lower > 0
    first, last = torch.where(mirrored, -upper, lower), torch.where(mirrored, -lower, upper)
    low, high = (scipy.special.log_ndtr(x.numpy()) for x in (first, last))
    share = np.where(np.isneginf(low), 0.0, np.exp(np.minimum(low - high, 0.0)))
    u = uniform.numpy()
    drawn = torch.as_tensor(scipy.special.ndtri_exp(high + np.log(share + u * (1 - share))))
    drawn = torch.where(last > first, torch.minimum(drawn, last).maximum(first), first)
    return torch.where(mirrored, -drawn, drawn)
