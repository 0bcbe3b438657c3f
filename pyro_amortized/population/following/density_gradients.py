r"""Gradients of the log densities in the individual parameters by automatic differentiation.

For five parameters a gradient by central differences takes ten evaluations of the observations, and
by automatic differentiation the time of two or three. It holds where the program is written in
torch and solves no dynamics (gradients of these take many times as long as their solution). At some
draws of every individual both are compared; individuals whose gradients disagree or are not finite,
for instance because a part of the program is computed outside torch, are left to differences
(decision 084).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...cohort import Cohort
from ...errors import AmortizedError
from ...model import ModelStructure, Population
from ...runtime.solver_context import SolutionCache, caching
from .following_draws import FOLLOWING


@dataclass(frozen=True)
class GradientSettings:
    r"""When gradients are not differences.

    Args:
        min_values: Observed values times draws from which automatic differentiation saves more time
            than the comparison with differences takes.
        max_difference: Largest difference between both slopes along an axis of the posterior, for
            one standard deviation and relative to 1 plus the slope: beyond the error of differences
            with their step.
        num_compared: Draws of an individual that are compared, all of which have to agree: near the
            mode, where the slopes are small, a wrong one may look right, and it may be wrong at
            some draws only.
    """

    min_values: int = 200_000
    max_difference: float = 0.1
    num_compared: int = 12


GRADIENTS = GradientSettings()


def solves_dynamics(
    structure: ModelStructure, cohort: Cohort, draws: Tensor, population: Population
) -> bool:
    """Whether the model solves dynamics for some draws ``(draw, individual, latent)``: the exact
    likelihood at hundreds of populations would then take hours.
    """
    with caching(SolutionCache()) as cache, torch.no_grad():
        structure.log_density(cohort, draws, population)
    return cache.has_dynamics


def values_and_gradients(
    structure: ModelStructure, cohort: Cohort, draws: Tensor, population: Population
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Log densities of the observations at draws, and gradients in the individual parameters.

    Args:
        structure: A model that solves no dynamics.
        cohort: N individuals, in float64.
        draws: Shape ``(draw, individual, latent)``.
        population: Values of the population sites.

    Returns:
        The log densities of the observations, shape ``(draw, individual)``, their gradients and
        those of the log densities of the individual parameters, shape ``(draw, individual,
        latent)`` each.
    """
    parts = []
    for some in draws.split(structure.draws_per_call(cohort)):
        with torch.enable_grad():
            x = some.detach().clone().requires_grad_()
            density = structure.log_density(cohort, x, population)
            both = (density.observation, density.individual)
            slopes = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in both]
        parts.append((density.observation.detach(), *slopes))
    values, observed, individual = (torch.cat(x) for x in zip(*parts, strict=True))
    return values, observed, individual


def differentiable_rows(
    structure: ModelStructure, cohort: Cohort, draws: Tensor, population: Population, axes: Tensor
) -> Tensor:
    r"""The individuals whose gradients hold by automatic differentiation; none where there are few
    values.

    Args:
        structure: The model.
        cohort: N individuals, in float64.
        draws: Possible draws of them, of which the first ones are looked at, shape ``(draw,
            individual, latent)``.
        population: Values of the population sites.
        axes: Axes of their posteriors, one in each column, shape ``(individual, latent, latent)``.

    Returns:
        A boolean for each individual.
    """
    first = draws[: GRADIENTS.num_compared]
    nobody = torch.zeros(len(cohort), dtype=torch.bool)
    if len(draws) * cohort.num_values < GRADIENTS.min_values:
        return nobody
    if solves_dynamics(structure, cohort, draws[:1], population):
        return nobody
    try:
        _, observed, individual = values_and_gradients(structure, cohort, first, population)
    except (RuntimeError, AmortizedError):  # parts of the program are not torch's
        return nobody
    slopes = torch.einsum("kni,nij->knj", observed + individual, axes)
    units = (FOLLOWING.individual_step * axes).unbind(-1)
    ahead, behind = (_along(structure, cohort, first, population, units, x) for x in (1, -1))
    differences = (ahead - behind) / (2 * FOLLOWING.individual_step)
    near = (slopes - differences).abs() <= GRADIENTS.max_difference * (1 + differences.abs())
    # A slope that is not finite is not near.
    return near.all(-1).all(0)


def _along(
    structure: ModelStructure,
    cohort: Cohort,
    draws: Tensor,
    population: Population,
    units: Sequence[Tensor],
    sign: int,
) -> Tensor:
    """Log densities a step from draws along each axis, shape ``(draw, individual, axis)``."""
    with torch.no_grad():
        moved = torch.cat([draws + sign * unit for unit in units])
        density = structure.log_density(cohort, moved, population)
    return torch.stack(density.total.chunk(len(units)), -1)
