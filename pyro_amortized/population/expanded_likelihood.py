r"""The marginal likelihood with the observations expanded about the draws.

On draws :math:`u_{ik}(\Psi)` that follow the population
(:mod:`pyro_amortized.population.following_draws`),

.. math:: \log \hat p(y_i \mid \Psi) = \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}(\Psi), c)\; p(u_{ik}(\Psi) \mid \Psi)}{q_i(u_{ik})} .

The first factor needs most of the time (it solves the dynamics and reads every observation). It is
therefore expanded, for every draw separately, to second order in coordinates x that are linear in
the population (decision 035):

.. math:: \log p(y_i \mid u_{ik}, c) \approx a_{ik} + g_{ik}^\top x_i
          + \tfrac12\, x_i^\top H_{ik}\, x_i .

The coordinates are either the individual and the shared parameters themselves, or those parameters
of the population that the draws follow, whichever needs fewer evaluations. Value, gradient and
curvature of the likelihood at the center are those of the exact one. The individuals are evaluated
in parts, so that the memory is bounded; a gradient evaluates every part twice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..cohort import Cohort
from ..model import ModelStructure, Population
from ..numerics.finite_differences import expansion
from ..sampling.importance_weights import finite_or_zero_weight, log_moments
from ..sampling.individuals import IndividualPosteriors
from .fixed_draws import replace_impossible_draws
from .following_draws import Following, follow


@dataclass(frozen=True)
class ExpansionSettings:
    """Constants of the expansion."""

    # Draws times individuals that are evaluated together; limits the memory.
    max_rows: int = 400_000
    # Step of the finite differences in a parameter of the population, in units of its scale.
    relative_step: float = 1e-3
    # The same in an individual parameter, in posterior standard deviations: the error of a solver,
    # divided by the square of the step, must remain small.
    individual_step: float = 0.03
    # Largest number of individual and shared parameters for which they are the coordinates:
    # 21 to 43 evaluations of the observations for 4 to 6.
    max_coordinates: int = 6


EXPANSION = ExpansionSettings()


@dataclass(frozen=True, eq=False)
class ExpandedPart:
    r"""Draws of some individuals and the expansion of their observations.

    Args:
        repeated_cohort: The individuals, once for every draw.
        draws: Draws in unconstrained coordinates, shape ``(draw, individual, latent)``.
        offset: Log density of the observations at the center minus the log proposal, shape
            ``(draw, individual)``.
        gradient: g, shape ``(draw, individual, coordinate)``.
        hessian: H, shape ``(draw, individual, coordinate, coordinate)``.
        following: How the draws follow the population.
        coordinates: The linear map from the population to the coordinates x, shape
            ``(individual, coordinate, population)``.
    """

    repeated_cohort: Cohort
    draws: Tensor
    offset: Tensor
    gradient: Tensor
    hessian: Tensor
    following: Following
    coordinates: Tensor


@dataclass(frozen=True, eq=False)
class Coordinates:
    r"""The coordinates of the expansion of some individuals.

    Args:
        individual: Move of the individual parameters with a unit of each coordinate, shape
            ``(individual, latent, coordinate)``.
        shared: Move of the shared parameters, shape ``(shared, coordinate)``.
        steps: Steps of the differences, shape ``(coordinate,)``.
        of_population: The coordinates as a linear function of the population, shape
            ``(individual, coordinate, population)``.
    """

    individual: Tensor
    shared: Tensor
    steps: Tensor
    of_population: Tensor

    @staticmethod
    def parameters(following: Following, is_shared: Tensor, scale: Tensor) -> "Coordinates":
        """The individual parameters, in posterior standard deviations, and the shared ones."""
        num, num_latent, _ = following.directions.shape
        num_shared = int(is_shared.sum())
        zero = following.directions.new_zeros
        individual = torch.cat(
            [following.spread.diag_embed(), zero(num, num_latent, num_shared)], -1
        )
        shared = torch.cat([zero(num_shared, num_latent), scale[is_shared].diag()], -1)
        unit = torch.eye(len(scale), dtype=scale.dtype)[is_shared] / scale[is_shared, None]
        relative = following.directions / following.spread.unsqueeze(-1)
        steps = torch.cat(
            [
                torch.full((num_latent,), EXPANSION.individual_step, dtype=scale.dtype),
                torch.full((num_shared,), EXPANSION.relative_step, dtype=scale.dtype),
            ]
        )
        of_population = torch.cat([relative, unit.expand(num, -1, -1)], 1)
        return Coordinates(individual, shared, steps, of_population)

    @staticmethod
    def population(
        following: Following, chosen: Tensor, is_shared: Tensor, scale: Tensor
    ) -> "Coordinates":
        """Some coordinates of the population, which the draws follow."""
        individual = following.directions[:, :, chosen] * scale[chosen]
        eye = torch.eye(len(scale), dtype=scale.dtype)
        shared = (eye * scale)[is_shared][:, chosen]
        of_population = (eye[chosen] / scale[chosen, None]).expand(len(individual), -1, -1)
        # No individual moves farther than its step.
        farthest = (individual.abs() / following.spread.unsqueeze(-1)).flatten(0, 1).amax(0)
        steps = EXPANSION.individual_step / farthest.clamp(min=1e-12)
        return Coordinates(
            individual, shared, steps.clamp(max=EXPANSION.relative_step), of_population
        )


class ExpandedLikelihood:
    r"""Log p(y_i | Psi) with the densities of the observations expanded about the draws.

    Draws of weight zero keep this weight; the model is not evaluated at them.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
        about: Population to expand about. Default: that of the draws.
        following: How the draws follow the population. Default: it is computed from them.
        settings: Steps of the differences, and size of the parts.
    """

    def __init__(
        self,
        individuals: IndividualPosteriors,
        scale: Tensor,
        about: Population | None = None,
        following: Following | None = None,
        settings: ExpansionSettings | None = None,
    ) -> None:
        settings, structure = settings or EXPANSION, individuals.structure
        self.individuals, self.scale, self.structure = individuals, scale, structure
        self.about_draws = about is None
        population = individuals.population if about is None else about
        self.center = structure.unconstrain_population(population).detach()
        following = follow(individuals, scale) if following is None else following
        self.is_shared = structure.coordinates(structure.shared)
        num_coordinates = following.spread.shape[1] + int(self.is_shared.sum())
        few = num_coordinates <= settings.max_coordinates
        self.by_parameters = few and not following.stays
        self.following = following if self.by_parameters else following.only(self.is_shared)
        size = max(1, settings.max_rows // individuals.num_draws)
        with torch.no_grad():
            self.parts = [
                self._part(rows, dict(population))
                for rows in torch.arange(len(individuals.cohort)).split(size)
            ]

    def _part(self, rows: Tensor, population: Population) -> ExpandedPart:
        structure, individuals = self.structure, self.individuals
        cohort = individuals.cohort[rows].to(dtype=torch.float64)
        following = self.following.take(rows)
        draws = individuals.unconstrained[:, rows]
        repeated_cohort = cohort.repeat(len(draws))
        log_weights = individuals.log_weights[:, rows]
        log_proposal = individuals.log_proposal[:, rows]
        impossible = log_weights == -math.inf
        draws = replace_impossible_draws(draws, log_weights, impossible)
        if self.about_draws:  # the weights of the draws contain the density of the observations
            individual = structure.log_individual_of(repeated_cohort, draws, population)
            observation = log_weights + log_proposal - individual
        else:
            draws = draws + following.move(self.center)
            (observation,) = structure.log_observations(cohort, draws, [population])
            observation = observation.masked_fill(impossible, -math.inf)
        coordinates = (
            Coordinates.parameters(following, self.is_shared, self.scale)
            if self.by_parameters
            else Coordinates.population(following, self.is_shared, self.is_shared, self.scale)
        )
        gradient, hessian = expansion(
            _Moved(structure, cohort, draws, population, coordinates),
            coordinates.steps,
            observation,
        )
        return ExpandedPart(
            repeated_cohort,
            draws,
            observation - log_proposal,
            gradient,
            hessian,
            following,
            coordinates.of_population,
        )

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        with torch.no_grad():
            return torch.cat([self._part_weights(part, population) for part in self.parts], 1)

    def _part_weights(self, part: ExpandedPart, population: Population) -> Tensor:
        structure = self.structure
        change = structure.unconstrain_population(population) - self.center
        draws = part.draws + part.following.directions @ change
        log_weights = structure.log_individual_of(part.repeated_cohort, draws, population)
        log_weights = log_weights + part.offset
        if part.gradient.shape[-1]:
            x = part.coordinates @ change
            curved = part.gradient + 0.5 * (part.hessian @ x.unsqueeze(-1)).squeeze(-1)
            log_weights = log_weights + (curved * x).sum(-1)
        return finite_or_zero_weight(log_weights)

    def distances(self, population: Population) -> tuple[Tensor, Tensor]:
        """How far a population is from the one that the observations were expanded about: the
        largest move of an individual parameter, in posterior standard deviations, shape
        ``(individual,)``, and the moves of the shared parameters, in units of their scale, shape
        ``(shared,)``; differentiable.
        """
        change = self.structure.unconstrain_population(population) - self.center
        moves = (self.following.directions @ change).abs() / self.following.spread
        return moves.amax(-1), (change.abs() / self.scale)[self.is_shared]

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


class _Moved:
    """Log densities of the observations at points of the coordinates, for :func:`expansion`.

    Points with the same individual parameters are evaluated together: their dynamics are often
    the same, and are then solved once.
    """

    def __init__(
        self,
        structure: ModelStructure,
        cohort: Cohort,
        draws: Tensor,
        population: Population,
        coordinates: Coordinates,
    ) -> None:
        self.structure, self.cohort, self.draws = structure, cohort, draws
        self.population, self.coordinates = population, coordinates
        self.center = structure.unconstrain_population(population, structure.shared)

    def __call__(self, points: Sequence[Tensor]) -> list[Tensor]:
        moves = [self.coordinates.individual @ point for point in points]
        values: list[Tensor] = [torch.empty(0)] * len(points)
        remaining = list(range(len(points)))
        while remaining:
            first = remaining[0]
            same = [j for j in remaining if torch.equal(moves[j], moves[first])]
            populations = [self._population(points[j]) for j in same]
            results = self.structure.log_observations(
                self.cohort, self.draws + moves[first], populations
            )
            for j, result in zip(same, results, strict=True):
                values[j] = result
            remaining = [j for j in remaining if j not in same]
        return values

    def _population(self, point: Tensor) -> Population:
        shared = self.center + self.coordinates.shared @ point
        return dict(self.population) | self.structure.constrain_population(
            shared, self.structure.shared
        )
