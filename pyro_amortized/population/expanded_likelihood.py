r"""The marginal likelihood with the observations expanded in the shared parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..cohort import Cohort
from ..model import Population
from ..numerics.finite_differences import expansion
from ..sampling.importance_weights import finite_or_zero_weight, log_moments
from ..sampling.individuals import IndividualPosteriors
from .fixed_draws import with_stand_ins

MAX_ROWS = 400_000  # draws of the individuals that are taken together


STEP = 1e-3  # of the differences, in units of the scale of c


@dataclass(frozen=True, eq=False)
class Part:
    """Draws of some individuals: the cohort once per draw, and log proposal less what the
    observations say, expanded.
    """

    many: Cohort
    draws: Tensor
    offset: Tensor
    gradient: Tensor
    hessian: Tensor


class ExpandedLikelihood:
    r"""Log p(y_i | Psi) with the observations' densities expanded in the shared parameters, about
    the population of the draws.

    Draws of weight zero stay so: no program is asked for slopes at them.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter.
        about: Population to expand about. Default: that of the draws.
    """

    def __init__(
        self,
        individuals: IndividualPosteriors,
        scale: Tensor,
        about: Population | None = None,
    ) -> None:
        self.individuals, self.scale, structure = individuals, scale, individuals.structure
        self.structure, self.moved = structure, about is not None
        population = individuals.population if about is None else about
        self.center = structure.unconstrain_population(population, structure.shared).detach()
        steps = STEP * scale[structure.coordinates(structure.shared)]
        size = max(1, MAX_ROWS // individuals.num_draws)
        cohort = individuals.cohort.to(dtype=torch.float64)
        with torch.no_grad():
            self.parts = [
                self._part(cohort[rows], rows, dict(population), steps)
                for rows in torch.arange(len(cohort)).split(size)
            ]

    def _part(self, cohort: Cohort, rows: Tensor, population: Population, steps: Tensor) -> Part:
        draws = self.individuals.unconstrained[:, rows]
        structure, center = self.structure, self.center
        many = cohort.repeat(len(draws))
        weights = self.individuals.log_weights[:, rows]
        log_proposal = self.individuals.log_proposal[:, rows]
        dead = weights == -math.inf
        draws = with_stand_ins(draws, weights, dead)
        if self.moved:
            (observation,) = structure.log_observations(cohort, draws, [population])
            observation = observation.masked_fill(dead, -math.inf)
        else:
            known = structure.log_individual_of(many, draws, population)
            observation = weights + log_proposal - known

        def around(some: Sequence[Tensor]) -> list[Tensor]:
            moved = [
                dict(population) | structure.constrain_population(center + x, structure.shared)
                for x in some
            ]
            return structure.log_observations(cohort, draws, moved) if some else []

        gradient, hessian = expansion(around, steps, observation)
        return Part(many, draws, observation - log_proposal, gradient, hessian)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        with torch.no_grad():
            return torch.cat([self._part_weights(part, population) for part in self.parts], 1)

    def _part_weights(self, part: Part, population: Population) -> Tensor:
        found = self.structure.log_individual_of(part.many, part.draws, population)
        found = found + part.offset
        if len(self.center):
            shared = self.structure.unconstrain_population(population, self.structure.shared)
            move = shared - self.center
            found = found + (part.gradient + 0.5 * part.hessian @ move) @ move
        return finite_or_zero_weight(found)

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        names, values = list(population), list(population.values())

        def value(part: Part, *values: Tensor) -> Tensor:
            return log_moments(self._part_weights(part, dict(zip(names, values, strict=True))))

        if len(self.parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([value(part, *values) for part in self.parts], 1)
        parts = [checkpoint(value, part, *values, use_reentrant=False) for part in self.parts]
        return torch.cat(parts, 1)

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]
