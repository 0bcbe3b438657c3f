r"""The marginal likelihood with the observations expanded in the shared parameters.

On fixed draws :math:`u_{ik} \sim q_i`,

.. math:: \log \hat p(y_i \mid \Psi) = \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}, c)\; p(u_{ik} \mid \Psi)}{q_i(u_{ik})} .

The first factor needs most of the time (it solves the dynamics and reads every observation), and
depends on Psi only through the shared parameters c. With many individuals it is therefore expanded,
for every draw separately, to second order about some :math:`c_0` (decision 035):

.. math:: \log p(y_i \mid u_{ik}, c) \approx a_{ik} + g_{ik}^\top (c - c_0)
          + \tfrac12 (c - c_0)^\top H_{ik} (c - c_0) .

Value, gradient and curvature of the likelihood at :math:`c_0` are those of the exact one. The
individuals are evaluated in parts, so that the memory is bounded; a gradient evaluates every part
twice.
"""

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
from .fixed_draws import replace_impossible_draws


@dataclass(frozen=True)
class ExpansionSettings:
    """Constants of the expansion."""

    # Draws times individuals that are evaluated together; limits the memory.
    max_rows: int = 400_000
    # Step of the finite differences, in units of the scale of c.
    relative_step: float = 1e-3


EXPANSION = ExpansionSettings()


@dataclass(frozen=True, eq=False)
class ExpandedPart:
    r"""Draws of some individuals and the expansion of their observations.

    Args:
        repeated_cohort: The individuals, once for every draw.
        draws: Draws in unconstrained coordinates, shape ``(draw, individual, latent)``.
        offset: Log density of the observations at :math:`c_0` minus the log proposal, shape
            ``(draw, individual)``.
        gradient: g, shape ``(draw, individual, shared)``.
        hessian: H, shape ``(draw, individual, shared, shared)``.
    """

    repeated_cohort: Cohort
    draws: Tensor
    offset: Tensor
    gradient: Tensor
    hessian: Tensor


class ExpandedLikelihood:
    r"""Log p(y_i | Psi) with the densities of the observations expanded in the shared parameters.

    Draws of weight zero keep this weight; the model is not evaluated at them.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
        about: Population to expand about. Default: that of the draws.
        settings: Step of the differences, and size of the parts.
    """

    def __init__(
        self,
        individuals: IndividualPosteriors,
        scale: Tensor,
        about: Population | None = None,
        settings: ExpansionSettings | None = None,
    ) -> None:
        settings, structure = settings or EXPANSION, individuals.structure
        self.individuals, self.scale, self.structure = individuals, scale, structure
        self.about_draws = about is None
        population = individuals.population if about is None else about
        self.center = structure.unconstrain_population(population, structure.shared).detach()
        steps = settings.relative_step * scale[structure.coordinates(structure.shared)]
        size = max(1, settings.max_rows // individuals.num_draws)
        cohort = individuals.cohort.to(dtype=torch.float64)
        with torch.no_grad():
            self.parts = [
                self._part(cohort[rows], rows, dict(population), steps)
                for rows in torch.arange(len(cohort)).split(size)
            ]

    def _part(
        self, cohort: Cohort, rows: Tensor, population: Population, steps: Tensor
    ) -> ExpandedPart:
        draws = self.individuals.unconstrained[:, rows]
        structure, center = self.structure, self.center
        repeated_cohort = cohort.repeat(len(draws))
        log_weights = self.individuals.log_weights[:, rows]
        log_proposal = self.individuals.log_proposal[:, rows]
        impossible = log_weights == -math.inf
        draws = replace_impossible_draws(draws, log_weights, impossible)
        if self.about_draws:  # the weights of the draws contain the density of the observations
            individual = structure.log_individual_of(repeated_cohort, draws, population)
            observation = log_weights + log_proposal - individual
        else:
            (observation,) = structure.log_observations(cohort, draws, [population])
            observation = observation.masked_fill(impossible, -math.inf)

        def log_observations(moves: Sequence[Tensor]) -> list[Tensor]:
            populations = [
                dict(population) | structure.constrain_population(center + x, structure.shared)
                for x in moves
            ]
            return structure.log_observations(cohort, draws, populations) if moves else []

        gradient, hessian = expansion(log_observations, steps, observation)
        return ExpandedPart(repeated_cohort, draws, observation - log_proposal, gradient, hessian)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        with torch.no_grad():
            return torch.cat([self._part_weights(part, population) for part in self.parts], 1)

    def _part_weights(self, part: ExpandedPart, population: Population) -> Tensor:
        structure = self.structure
        individual = structure.log_individual_of(part.repeated_cohort, part.draws, population)
        log_weights = individual + part.offset
        if len(self.center):
            shared = structure.unconstrain_population(population, structure.shared)
            move = shared - self.center
            log_weights = log_weights + (part.gradient + 0.5 * part.hessian @ move) @ move
        return finite_or_zero_weight(log_weights)

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        names, values = list(population), list(population.values())

        def part_moments(part: ExpandedPart, *values: Tensor) -> Tensor:
            moved = dict(zip(names, values, strict=True))
            return log_moments(self._part_weights(part, moved))

        if len(self.parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([part_moments(part, *values) for part in self.parts], 1)
        parts = [
            checkpoint(part_moments, part, *values, use_reentrant=False) for part in self.parts
        ]
        return torch.cat(parts, 1)

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]
