r"""Uncertainty of population estimates from the curvature of the marginal likelihood.

With the observed information I in unconstrained coordinates z, the covariance is :math:`I^{-1}`.
For values :math:`\theta = g(z)` in their support the delta method gives

.. math:: \mathrm{cov}(\theta) \approx J\, I^{-1} J^\top, \qquad J = \partial g / \partial z .

Confidence intervals are computed in unconstrained coordinates and mapped into the support, so a
standard deviation never has a negative bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .maximization import DEFAULTS as DIFFERENCES
from .maximization import Objective, observed_information


@dataclass(frozen=True)
class LaplaceSettings:
    r"""What counts as not determined.

    Args:
        flat_information: An eigenvalue of the information in units of ``scale``, below which its
            direction is flat: with the scale of a prior, the standard error is then ten times as
            large as the prior standard deviation.
        flat_eigenvalue: An eigenvalue of the information, relative to the largest, below which its
            direction is flat: differences of double precision resolve no smaller one. Coordinates
            with more information than one per unit are first divided by its square root: under
            wide priors, a precise slope would make a standard deviation look flat otherwise.
        flat_loading: A coordinate takes part in a flat direction from this component of its unit
            vector on.
        pinned_error: A standard error, in steps of the differences, below which these cannot
            resolve the curvature. It occurs where fixed draws meet a variance of nearly zero.
        max_step: Largest step of the differences, in standard errors of a single coordinate, where
            these are about known: with steps of a thousandth of a wide prior, precise data would
            look as if they were pinned.
    """

    flat_information: float = 1e-2
    flat_eigenvalue: float = 1e-8
    flat_loading: float = 1e-3
    pinned_error: float = 0.1
    max_step: float = 0.3


DEFAULTS = LaplaceSettings()


class Curvature(NamedTuple):
    """Covariance of a vector from the curvature of an objective, whether the objective has a
    maximum there, the directions in which it is flat, in units of the scale, shape
    ``(direction, parameter)``, and whether the covariance is that of the scores in place of the
    curvature.
    """

    covariance: Tensor
    is_maximum: bool
    flat: Tensor
    by_scores: bool = False


def difference_steps(scores: Tensor, scale: Tensor) -> Tensor:
    r"""Steps of the differences that give the information, in units of ``scale``, shape
    ``(parameter,)``: those of :func:`laplace_covariance`, or shorter ones where the standard error
    of a single coordinate is small.

    Args:
        scores: Scores of the individuals, shape ``(individual, parameter)``: the sum of their
            squares is about the information.
        scale: Size of a large step in each parameter, shape ``(parameter,)``.
    """
    information = (scores * scale).square().sum(0).nan_to_num(0.0)
    return (DEFAULTS.max_step / information.sqrt()).clamp(max=DIFFERENCES.difference)


def laplace_covariance(
    objective: Objective,
    vector: Tensor,
    scale: Tensor | None = None,
    free: Tensor | None = None,
    difference: float | Tensor = DIFFERENCES.difference,
    checked: Callable[[Tensor], Tensor] | None = None,
) -> Curvature:
    r"""Inverse observed information at a maximum.

    Args:
        objective: Log likelihood (or log posterior) as a function of the vector.
        vector: Its maximum, shape ``(parameter,)``.
        scale: Size of a large step in each parameter. Default: 1.
        free: Coordinates that were maximized over. The others are fixed, and their covariance is
            NaN. Default: all.
        difference: Step of the differences, in units of ``scale``; one, or shape
            ``(parameter,)``.
        checked: Maps the information of the free coordinates, in units of ``scale``, to a better
            one.

    Returns:
        Covariance, shape ``(parameter, parameter)``. If the objective does not decrease in every
        direction, ``is_maximum`` is False and the covariance is NaN in the coordinates that are
        not determined; all of it is NaN if a slope is not finite.
    """
    unit = torch.ones_like(vector) if scale is None else scale.double()
    step = torch.as_tensor(difference, dtype=torch.float64).expand(len(vector))
    if free is not None and not bool(free.all()):
        inner = laplace_covariance(
            lambda x: objective(vector.masked_scatter(free, x)),
            vector[free],
            unit[free],
            difference=step[free],
            checked=checked,
        )
        covariance = torch.full((len(vector),) * 2, torch.nan, dtype=torch.float64)
        covariance[free.unsqueeze(0) & free.unsqueeze(1)] = inner.covariance.flatten()
        flat = torch.zeros(len(inner.flat), len(vector), dtype=torch.float64)
        flat[:, free] = inner.flat
        return Curvature(covariance, inner.is_maximum, flat)
    information = observed_information(objective, vector, step * unit) * torch.outer(unit, unit)
    if not bool(information.isfinite().all()):
        no_direction = torch.zeros(0, len(vector), dtype=torch.float64)
        return Curvature(torch.full_like(information, torch.nan), False, no_direction)
    if checked is not None:
        information = checked(information)
    flat_information = DEFAULTS.flat_information if scale is not None else 0.0
    return inverted_information(information, unit, flat_information, step)


def inverted_information(
    information: Tensor,
    unit: Tensor,
    flat_information: float = DEFAULTS.flat_information,
    difference: float | Tensor = DIFFERENCES.difference,
) -> Curvature:
    r"""The covariance by an information, and the directions in which it is flat.

    Args:
        information: Information in these units, shape ``(parameter, parameter)``.
        unit: Size of a large step in each parameter, shape ``(parameter,)``.
        flat_information: Information below which a direction is flat.
        difference: Step of the differences that gave it, in these units.
    """
    size = information.diagonal().clamp(min=1.0).sqrt()
    values, vectors = torch.linalg.eigh(information / torch.outer(size, size))
    directions = vectors / size.unsqueeze(1)
    lengths = directions.norm(dim=0)
    is_curved = values > DEFAULTS.flat_eigenvalue * values.abs().max()
    is_curved &= values > flat_information * lengths.square()
    inverse = torch.where(is_curved, 1 / values, torch.zeros_like(values))
    covariance = (directions * inverse) @ directions.T * torch.outer(unit, unit)
    flat = (directions / lengths)[:, ~is_curved]
    undetermined = (flat.abs() > DEFAULTS.flat_loading).any(1)
    pinned = covariance.diagonal().clamp(min=0).sqrt() < DEFAULTS.pinned_error * difference * unit
    covariance[undetermined | pinned] = torch.nan
    covariance[:, undetermined | pinned] = torch.nan
    is_maximum = bool(is_curved.all()) and not bool(pinned.any())
    return Curvature(covariance, is_maximum, flat.T)


def delta_method(
    transform: Callable[[Tensor], Tensor], vector: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Value and standard error of a function of the population parameters.

    Args:
        transform: Differentiable function of the unconstrained vector, for instance
            ``lambda z: structure.constrain_population(z)["typical"].exp()``.
        vector: Unconstrained estimates, shape ``(parameter,)``.
        covariance: Their covariance.

    Returns:
        The value and its standard error, shape of the value.

    Example:
        >>> value, error = delta_method(torch.exp, torch.zeros(1), torch.tensor([[0.04]]))
        >>> value, error.round(decimals=4)
        (tensor([1.]), tensor([0.2000]))
    """
    vector = vector.detach()
    value = transform(vector)
    jacobian = torch.autograd.functional.jacobian(transform, vector).reshape(value.numel(), -1)
    variance = ((jacobian @ covariance.nan_to_num(0.0)) * jacobian).sum(1)
    unknown = (jacobian[:, covariance.diagonal().isnan()] != 0).any(1)
    return value, variance.clamp(min=0).sqrt().masked_fill(unknown, torch.nan).reshape(value.shape)


def normal_quantile(level: float) -> float:
    """Standard deviations from the mean within which a normal variable lies with a probability.

    Example:
        >>> round(normal_quantile(0.95), 4)
        1.96
    """
    return float(torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64)))


def confidence_interval(
    transform: Callable[[Tensor], Tensor], vector: Tensor, covariance: Tensor, level: float = 0.95
) -> tuple[Tensor, Tensor]:
    r"""Bounds of the interval of every unconstrained coordinate, mapped into the support.

    Args:
        transform: Maps the unconstrained vector to values; increasing in each coordinate.
        vector: Unconstrained estimates.
        covariance: Their covariance.
        level: Coverage.

    Returns:
        Lower and upper bounds, shape of the values.
    """
    half = normal_quantile(level) * covariance.diagonal().clamp(min=0).sqrt()
    ends = torch.stack([transform(vector - half), transform(vector + half)])
    return ends.amin(0), ends.amax(0)
