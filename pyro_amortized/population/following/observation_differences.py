r"""Log densities of the observations around the first draws of every individual.

The moves of the draws (:mod:`pyro_amortized.population.following.following_draws`) and the
expansion of the observations (:mod:`pyro_amortized.population.likelihood.expanded_likelihood`) need
the same differences. They are computed once: with 180 values of each of 200 cells, evaluations of
the observations were nine tenths of the time of a fit.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure, Population
from ...sampling.individuals import IndividualPosteriors
from .complete_scores import individual_scores, shared_observations, with_shared_slopes
from .density_gradients import differentiable_rows, values_and_gradients
from .following_draws import FOLLOWING


@dataclass(frozen=True, eq=False)
class ObservationDifferences:
    r"""Log densities of the observations a step forwards and backwards in every coordinate.

    Args:
        around: Log densities, shape ``(2, draw, individual, coordinate)``. The coordinates are the
            axes of the individual parameters and the shared ones, the draws the first ones of the
            individuals.
    """

    around: Tensor

    @property
    def num_draws(self) -> int:
        """Number of draws that they are known for."""
        return self.around.shape[1]

    def take(self, rows: Tensor) -> "ObservationDifferences":
        """Those of some individuals."""
        return ObservationDifferences(self.around[:, :, rows])

    def at(self, point: Tensor) -> Tensor | None:
        """Log densities ``(draw, individual)`` at a point of the coordinates ``(coordinate,)``, if
        it lies a step away in one of them.
        """
        places = point.nonzero()[:, 0].tolist()
        if len(places) != 1:
            return None
        return self.around[0 if point[places[0]] > 0 else 1, ..., places[0]]


class Slopes(NamedTuple):
    r"""Derivatives of log p(y, u | Psi) at draws.

    Args:
        scores: In the unconstrained population, shape ``(draw, individual, population)``.
        gradients: In the unconstrained individual parameters, shape ``(draw, individual, latent)``.
        differences: The observations that they come from; None where these do not have all of
            them.
    """

    scores: Tensor
    gradients: Tensor
    differences: ObservationDifferences | None


def slopes_at(
    individuals: IndividualPosteriors,
    draws: Tensor,
    population_steps: Tensor,
    individual_steps: Tensor,
    by_torch: bool = True,
) -> Slopes:
    r"""Derivatives of log p(y, u | Psi) at draws: by central differences, and in the individual
    parameters by automatic differentiation where that holds.

    Args:
        individuals: Their model, data and population.
        draws: Draws of these individuals, shape ``(draw, individual, latent)``.
        population_steps: Shape ``(population,)``.
        individual_steps: Lower triangular, a step in each column, shape ``(individual, latent,
            latent)``.
        by_torch: Whether automatic differentiation may be used.
    """
    structure = individuals.structure
    cohort = individuals.cohort.to(dtype=torch.float64)
    center = structure.unconstrain_population(individuals.population).detach()
    with torch.no_grad():
        scores = individual_scores(
            structure, cohort.repeat(len(draws)), draws, center, population_steps
        )
        shared = shared_observations(structure, cohort, draws, center, population_steps)
    scores = with_shared_slopes(structure, scores, shared, population_steps)
    axes = individual_steps / FOLLOWING.individual_step
    parts = (structure, cohort, draws, individuals.population, axes)
    rows = differentiable_rows(*parts) if by_torch else torch.zeros(len(cohort), dtype=torch.bool)
    if bool(rows.any()):
        mixed = _mixed_gradients(individuals, cohort, draws, individual_steps, rows)
        return Slopes(scores, mixed, None)
    gradients, observed = _differences(individuals, cohort, draws, individual_steps)
    return Slopes(scores, gradients, ObservationDifferences(torch.cat([observed, shared], -1)))


def _mixed_gradients(
    individuals: IndividualPosteriors, cohort: Cohort, draws: Tensor, steps: Tensor, rows: Tensor
) -> Tensor:
    """Gradients of log p(y, u | Psi), by automatic differentiation for some individuals and by
    differences for the others, and for those of which it is not finite at every draw.
    """
    structure, population = individuals.structure, individuals.population
    gradients = torch.zeros_like(draws)
    parts = (structure, cohort[rows], draws[:, rows], population)
    _, observed, individual = values_and_gradients(*parts)
    gradients[:, rows] = observed + individual
    rest = ~(rows & gradients.isfinite().all(-1).all(0))
    if bool(rest.any()):
        others = (individuals, cohort[rest], draws[:, rest], steps[rest])
        gradients[:, rest] = _differences(*others)[0]
    return gradients


def _differences(
    individuals: IndividualPosteriors, cohort: Cohort, draws: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of log p(y, u | Psi), and the observations a step forwards and backwards."""
    with torch.no_grad():
        parts = (individuals.structure, cohort, draws, individuals.population)
        observed, individual = _around(*parts, steps)
    ahead, behind = observed + individual
    along = ((ahead - behind) / 2).movedim(0, 2)  # (individual, latent, draw)
    gradients = torch.linalg.solve_triangular(steps.mT, along, upper=True)
    return gradients.movedim(2, 0), observed


def _around(
    structure: ModelStructure,
    cohort: Cohort,
    draws: Tensor,
    population: Population,
    steps: Tensor,
) -> tuple[Tensor, Tensor]:
    """Log densities of the observations and of the individual parameters a step forwards and
    backwards along each axis of these, shape ``(2, draw, individual, latent)`` each.
    """
    units = steps.unbind(2)
    densities = [
        [structure.log_density(cohort, draws + x, population) for x in (unit, -unit)]
        for unit in units
    ]
    observed, individual = (
        torch.stack([torch.stack([pair[side][part] for pair in densities], -1) for side in (0, 1)])
        for part in (0, 1)
    )
    return observed, individual
