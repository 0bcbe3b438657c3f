r"""The marginal likelihood with the observations expanded about the draws.

On draws :math:`u_{ik}(\Psi)` that follow the population
(:mod:`pyro_amortized.population.following_draws`),

.. math:: \log \hat p(y_i \mid \Psi) = \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}(\Psi), c)\; p(u_{ik}(\Psi) \mid \Psi)\,
          |\partial u_{ik}(\Psi) / \partial u_{ik}|}{q_i(u_{ik})} .

The first factor needs most of the time (it solves the dynamics and reads every observation). It is
therefore expanded, for every draw separately, to second order in some coordinates x (decision 035):

.. math:: \log p(y_i \mid u_{ik}, c) \approx a_{ik} + g_{ik}^\top x_{ik}
          + \tfrac12\, x_{ik}^\top H_{ik}\, x_{ik} .

The coordinates are the moves of the individual parameters of the draw and of the shared
parameters. Where these are many, the mixed derivatives are found by a regression over the draws
(decision 054), and where all Hessians would need too much memory, the coordinates are the shared
parameters alone; the draws then follow only those, without being stretched. Value and gradient of
the likelihood at the center are those of the exact one, and so is its curvature but for the error
of the regression. The individuals are evaluated in parts, so that the memory is bounded; a
gradient evaluates every part twice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..cohort import Cohort
from ..model import ModelStructure, Population
from ..numerics.finite_differences import expansion, regressed_expansion
from ..numerics.small_sums import quadratic_form
from ..sampling.importance_weights import finite_or_zero_weight, log_moments, normalized_weights
from ..sampling.individuals import IndividualPosteriors
from .fixed_draws import is_negligible, replace_impossible_draws
from .following_draws import Following, follow


@dataclass(frozen=True)
class ExpansionSettings:
    """Constants of the expansion."""

    # Draws times individuals that are evaluated together; limits the memory.
    max_rows: int = 400_000
    # Step of the finite differences in a parameter of the population, in units of its scale.
    relative_step: float = 1e-3
    # The same where the density is a learned one, whose logarithm has kinks: about the largest move
    # in a round. With the small step, rounds promised 50 in log likelihood where there was 1.
    learned_step: float = 0.25
    # The same in an individual parameter, in posterior standard deviations: the error of a solver,
    # divided by the square of the step, must remain small.
    individual_step: float = 0.03
    # Rise of the log density of the observations of a draw, above that of the best draw of the
    # individual, beyond which it rises logarithmically only. Far from the center an expansion with
    # positive curvature has no bound: rounds promised gains of 1e19 and more.
    free_rise: float = 5.0
    # Largest number of individual and shared parameters for which all mixed derivatives are
    # differences: 21 to 43 evaluations of the observations for 4 to 6. Beyond it, they are found by
    # regression, with two evaluations per parameter and two per pair of shared ones.
    max_coordinates: int = 6
    # Largest number of elements of all Hessians, 800 MB; beyond it the coordinates are the shared
    # parameters alone.
    max_elements: int = 100_000_000


EXPANSION = ExpansionSettings()


@dataclass(frozen=True, eq=False)
class ExpandedPart:
    r"""Draws of some individuals and the expansion of their observations.

    Args:
        repeated_cohort: The individuals, once for every draw.
        draws: Draws in unconstrained coordinates, shape ``(draw, individual, latent)``.
        center: The draws at the population that the observations are expanded about, same shape.
        offset: Log density of the observations at the center minus the log proposal, shape
            ``(draw, individual)``.
        headroom: Change of that log density from which it rises logarithmically, same shape.
        gradient: g, shape ``(draw, individual, coordinate)``.
        hessian: H, shape ``(draw, individual, coordinate, coordinate)``.
        following: How the draws follow the population.
        shared_units: The linear map from the population to the shared ones of the coordinates x,
            shape ``(shared, population)``.
    """

    repeated_cohort: Cohort
    draws: Tensor
    center: Tensor
    offset: Tensor
    headroom: Tensor
    gradient: Tensor
    hessian: Tensor
    following: Following
    shared_units: Tensor


@dataclass(frozen=True, eq=False)
class Coordinates:
    r"""The coordinates of the expansion of some individuals.

    Args:
        individual: Move of the individual parameters with a unit of each coordinate, shape
            ``(individual, latent, coordinate)``.
        shared: Move of the shared parameters, shape ``(shared, coordinate)``.
        steps: Steps of the differences, shape ``(coordinate,)``.
        shared_units: The shared parameters in units of the coordinates, as a linear function of the
            population, shape ``(shared, population)``.
    """

    individual: Tensor
    shared: Tensor
    steps: Tensor
    shared_units: Tensor

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
        steps = torch.cat(
            [
                torch.full((num_latent,), EXPANSION.individual_step, dtype=scale.dtype),
                torch.full((num_shared,), EXPANSION.relative_step, dtype=scale.dtype),
            ]
        )
        return Coordinates(individual, shared, steps, unit)

    @staticmethod
    def shared_parameters(
        following: Following, is_shared: Tensor, scale: Tensor, largest: float
    ) -> "Coordinates":
        """The shared parameters, which the draws follow; the steps are at most the largest one."""
        individual = following.directions[:, :, is_shared] * scale[is_shared]
        eye = torch.eye(len(scale), dtype=scale.dtype)
        shared = (eye * scale)[is_shared][:, is_shared]
        unit = eye[is_shared] / scale[is_shared, None]
        # No individual moves farther than its step.
        farthest = (individual.abs() / following.spread.unsqueeze(-1)).flatten(0, 1).amax(0)
        steps = EXPANSION.individual_step / farthest.clamp(min=1e-12)
        return Coordinates(individual, shared, steps.clamp(max=largest), unit)


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

    is_expanded = True

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
        self.few_coordinates = num_coordinates <= settings.max_coordinates
        num_elements = individuals.log_weights.numel() * num_coordinates**2
        self.by_parameters = num_elements <= settings.max_elements and not following.stays
        if not self.by_parameters:
            following = following.only(self.is_shared).without_stretching()
        self.following = following
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
        impossible = is_negligible(log_weights)
        draws = replace_impossible_draws(draws, log_weights, impossible)
        center = draws if self.about_draws else following.moved(draws, self.center)[0]
        if self.about_draws:  # the weights of the draws contain the density of the observations
            individual = structure.log_individual_of(repeated_cohort, draws, population)
            observation = log_weights + log_proposal - individual
        else:
            (observation,) = structure.log_observations(cohort, center, [population])
        observation = observation.masked_fill(impossible, -math.inf)
        coordinates = self._coordinates(following)
        moved = _Moved(structure, cohort, center, population, coordinates)
        if self.by_parameters and not self.few_coordinates:
            standard = (center - following.mean) / following.spread
            weights = normalized_weights(log_weights)
            gradient, hessian = regressed_expansion(
                moved, coordinates.steps, observation, standard, weights
            )
        else:
            gradient, hessian = expansion(moved, coordinates.steps, observation)
        return ExpandedPart(
            repeated_cohort,
            draws,
            center,
            observation - log_proposal,
            observation.amax(0) - observation + EXPANSION.free_rise,
            gradient,
            hessian,
            following,
            coordinates.shared_units,
        )

    def _coordinates(self, following: Following) -> Coordinates:
        if self.by_parameters:
            return Coordinates.parameters(following, self.is_shared, self.scale)
        is_learned = self.structure.estimator == "likelihood-free"
        largest = EXPANSION.learned_step if is_learned else EXPANSION.relative_step
        return Coordinates.shared_parameters(following, self.is_shared, self.scale, largest)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        with torch.no_grad():
            return torch.cat([self._part_weights(part, population) for part in self.parts], 1)

    def _part_weights(self, part: ExpandedPart, population: Population) -> Tensor:
        structure = self.structure
        vector = structure.unconstrain_population(population)
        draws, log_det = part.following.moved(part.draws, vector)
        log_weights = structure.log_individual_of(part.repeated_cohort, draws, population)
        log_weights = log_weights + part.offset + log_det
        if part.gradient.shape[-1]:
            shared = part.shared_units @ (vector - self.center)
            log_weights = log_weights + self._change(part, draws, shared)
        return finite_or_zero_weight(log_weights)

    def _change(self, part: ExpandedPart, draws: Tensor, shared: Tensor) -> Tensor:
        """Change of the log densities of the observations from the center, shape ``(draw,
        individual)``.
        """
        everywhere = shared.expand(*draws.shape[:2], -1)
        if not self.by_parameters:
            return quadratic_form(part.gradient, part.hessian, everywhere)
        x = torch.cat([(draws - part.center) / part.following.spread, everywhere], -1)
        total = quadratic_form(part.gradient, part.hessian, x)
        first = x.shape[-1] - len(shared)
        alone = part.gradient[..., first:] @ shared
        curvature = part.hessian[..., first:, first:].flatten(-2)
        alone = alone + 0.5 * (curvature @ torch.outer(shared, shared).flatten())
        rise = total - alone  # by the moves of the individual parameters
        above = (rise - part.headroom).clamp(min=0.0)
        return alone + torch.where(above > 0, part.headroom + above.log1p(), rise)

    def distances(self, population: Population) -> tuple[Tensor, Tensor]:
        """How far a population is from the one that the observations were expanded about: the
        largest move of an individual parameter, in posterior standard deviations, shape
        ``(individual,)``, and the moves of the shared parameters, in units of their scale, shape
        ``(shared,)``; differentiable.
        """
        vector = self.structure.unconstrain_population(population)
        # From the expansion's center, which need not be where the draws were made.
        following = replace(self.following, center=self.center)
        shared = (vector - self.center).abs() / self.scale
        return following.distance(vector), shared[self.is_shared]

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
