r"""The marginal likelihood with the observations expanded about the draws.

On draws :math:`u_{ik}(\Psi)` that follow the population
(:mod:`pyro_amortized.population.following.following_draws`),

.. math:: \log \hat p(y_i \mid \Psi) = \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}(\Psi), c)\; p(u_{ik}(\Psi) \mid \Psi)\,
          |\partial u_{ik}(\Psi) / \partial u_{ik}|}{q_i(u_{ik})} .

The weights are multiplied with the factors of their control variates
(``pyro_amortized.sampling.control_variates``). The first factor of the density needs most of the
time (it solves the dynamics and reads every observation). It is therefore expanded, for every draw
separately, to second order in some coordinates x (decision 035):

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

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...cohort import Cohort
from ...model import ModelStructure, Population
from ...numerics.cholesky import inverse_factor
from ...numerics.finite_differences import expansion, expansion_of_gradients, regressed_expansion
from ...numerics.small_sums import quadratic_form
from ...sampling.importance_weights import finite_or_zero_weight, log_moments, normalized_weights
from ...sampling.individuals import IndividualPosteriors
from ..following.density_gradients import GRADIENTS, differentiable_rows
from ..following.fitted_following import followed
from ..following.fixed_draws import without_negligible
from ..following.following_draws import FOLLOWING, Following
from ..following.observation_differences import ObservationDifferences
from .expansion_coordinates import Coordinates, MovedObservations
from .expansion_settings import EXPANSION, ExpansionSettings


@dataclass(frozen=True, eq=False)
class ExpandedPart:
    r"""Draws of some individuals and the expansion of their observations.

    Args:
        repeated_cohort: The individuals, once for every draw.
        draws: Draws in unconstrained coordinates, shape ``(draw, individual, latent)``.
        center: The draws at the population that the observations are expanded about, same shape.
        offset: Log density of the observations at the center minus the log proposal, shape
            ``(draw, individual)``.
        factors: Factors of the weights by their control variates, same shape, or None.
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
    factors: Tensor | None
    headroom: Tensor
    gradient: Tensor
    hessian: Tensor
    following: Following
    shared_units: Tensor


def along_axes(moves: Tensor, axes: Tensor) -> Tensor:
    """Moves ``(draw, individual, latent)`` in units of the axes, same shape."""
    return torch.einsum("nij,knj->kni", inverse_factor(axes), moves)


def limited_rise(rise: Tensor, headroom: Tensor) -> Tensor:
    """A rise of log densities that is logarithmic beyond the headroom, same shape."""
    above = (rise - headroom).clamp(min=0.0)
    return torch.where(above > 0, headroom + above.log1p(), rise)


def pays_by_torch(structure: ModelStructure) -> bool:
    """Whether an expansion takes less time with gradients by automatic differentiation."""
    num_shared = int(structure.coordinates(structure.shared).sum())
    return len(structure.latent_names) + num_shared >= EXPANSION.min_by_torch


class ExpandedLikelihood:
    r"""Log p(y_i | Psi) with the densities of the observations expanded about the draws.

    Draws of weight zero keep this weight; the model is not evaluated at them.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
        about: Population to expand about. Default: that of the draws.
        following: How the draws follow the population. Default: it is computed from them.
        settings: Size of the parts, and when the mixed derivatives are found by regression.
        differences: Differences about the draws at their population that are known already.
    """

    is_expanded = True
    noise = 0.0

    def __init__(
        self,
        individuals: IndividualPosteriors,
        scale: Tensor,
        about: Population | None = None,
        following: Following | None = None,
        settings: ExpansionSettings | None = None,
        differences: ObservationDifferences | None = None,
    ) -> None:
        settings, structure = settings or EXPANSION, individuals.structure
        self.individuals, self.scale, self.structure = individuals, scale, structure
        self.about_draws = about is None
        population = individuals.population if about is None else about
        self.center = structure.unconstrain_population(population).detach()
        if following is None:
            following, differences = followed(individuals, scale, by_torch=pays_by_torch(structure))
        self.is_shared = structure.coordinates(structure.shared)
        num_coordinates = following.spread.shape[1] + int(self.is_shared.sum())
        few_coordinates = num_coordinates <= settings.max_coordinates
        num_elements = individuals.log_weights.numel() * num_coordinates**2
        self.by_parameters = num_elements <= settings.max_elements and not following.stays
        if not self.by_parameters:
            following = following.only(self.is_shared).without_stretching()
        self.following = following
        by_torch = self.by_parameters and pays_by_torch(structure)
        nobody = torch.zeros(len(individuals.cohort), dtype=torch.bool)
        self.by_torch = self._differentiable(population) if by_torch else nobody
        is_any = bool(self.by_torch.any())
        self.is_regressed = self.by_parameters and not (few_coordinates or is_any)
        if not (self.by_parameters and self.about_draws):
            differences = None
        size = max(1, settings.max_rows // individuals.num_draws)
        with torch.no_grad():
            self.parts = [
                self._part(rows, dict(population), differences)
                for rows in torch.arange(len(individuals.cohort)).split(size)
            ]

    def _differentiable(self, population: Population) -> Tensor:
        """The individuals whose gradients automatic differentiation gives, a boolean for each."""
        individuals, structure = self.individuals, self.structure
        cohort = individuals.cohort.to(dtype=torch.float64)
        draws, _ = without_negligible(individuals.unconstrained, individuals.log_weights)
        if not self.about_draws:
            draws = self.following.moved(draws, self.center)[0]
        return differentiable_rows(structure, cohort, draws, population, self.following.axes)

    def _part(
        self, rows: Tensor, population: Population, differences: ObservationDifferences | None
    ) -> ExpandedPart:
        structure, individuals = self.structure, self.individuals
        cohort = individuals.cohort[rows].to(dtype=torch.float64)
        following = self.following.take(rows)
        log_weights = individuals.log_weights[:, rows]
        log_proposal = individuals.log_proposal[:, rows]
        draws, impossible = without_negligible(individuals.unconstrained[:, rows], log_weights)
        repeated_cohort = cohort.repeat(len(draws))
        center = draws if self.about_draws else following.moved(draws, self.center)[0]
        if self.about_draws:  # the weights of the draws contain the density of the observations
            individual = structure.log_individual_of(repeated_cohort, draws, population)
            observation = log_weights + log_proposal - individual
        else:
            (observation,) = structure.log_observations(cohort, center, [population])
        observation = observation.masked_fill(impossible, -math.inf)
        coordinates = self._coordinates(following)
        known = None if differences is None else differences.take(rows)
        moved = MovedObservations(structure, cohort, center, population, coordinates, known)
        derivatives = self._derivatives(moved, observation, log_weights, rows)
        return ExpandedPart(
            repeated_cohort,
            draws,
            center,
            observation - log_proposal,
            None if individuals.factors is None else individuals.factors[:, rows],
            observation.amax(0) - observation + EXPANSION.free_rise,
            *derivatives,
            following,
            coordinates.shared_units,
        )

    def _derivatives(
        self,
        moved: MovedObservations,
        observation: Tensor,
        log_weights: Tensor,
        rows: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian of the log densities of the observations at the center."""
        parts, rest = (moved, moved.coordinates.steps, observation), ~self.by_torch[rows]
        if not bool(rest.all()):
            most = GRADIENTS.max_difference
            gradient, hessian = expansion_of_gradients(moved.with_gradients, *parts[1:], most)
            # Where torch has no finite gradient at a draw, or a wrong one, the expansion has none.
            is_missing = (gradient == 0).all(-1) & observation.isfinite()
            rest = rest | is_missing.any(0)
            if bool(rest.any()):
                others = (moved.take(rest), parts[1], observation[:, rest])
                gradient[:, rest], hessian[:, rest] = expansion(*others)
            return gradient, hessian
        if not self.is_regressed:
            return expansion(*parts)
        following = self.following.take(rows)
        standard = along_axes(moved.draws - following.mean, following.axes)
        return regressed_expansion(*parts, standard, normalized_weights(log_weights))

    def _coordinates(self, following: Following) -> Coordinates:
        if self.by_parameters:
            return Coordinates.parameters(following, self.is_shared, self.scale)
        is_learned = self.structure.estimator == "likelihood-free"
        largest = EXPANSION.learned_step if is_learned else FOLLOWING.relative_step
        return Coordinates.shared_parameters(following, self.is_shared, self.scale, largest)

    def along_flow(self) -> "ExpandedLikelihood":
        """The same on draws that flow, for moves along a single parameter."""
        likelihood = copy.copy(self)
        likelihood.following = self.following.along_flow()
        likelihood.parts = [replace(x, following=x.following.along_flow()) for x in self.parts]
        return likelihood

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
        x = torch.cat([along_axes(draws - part.center, part.following.axes), everywhere], -1)
        total = quadratic_form(part.gradient, part.hessian, x)
        first = x.shape[-1] - len(shared)
        alone = part.gradient[..., first:] @ shared
        curvature = part.hessian[..., first:, first:].flatten(-2)
        alone = alone + 0.5 * (curvature @ torch.outer(shared, shared).flatten())
        rise = total - alone  # by the moves of the individual parameters
        return alone + limited_rise(rise, part.headroom)

    def distances(self, population: Population) -> tuple[Tensor, Tensor]:
        """How far a population is from the one that the observations were expanded about: the
        largest move of an individual parameter, in posterior standard deviations, shape
        ``(individual,)``, and the moves of the shared parameters, in units of their scale, shape
        ``(shared,)``; differentiable.
        """
        vector = self.structure.unconstrain_population(population)
        # From the expansion's center, which need not be where the draws were made.
        following = replace(self.following, center=self.center)
        return following.distances(vector, self.scale, self.is_shared)

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        names, values = list(population), list(population.values())

        def part_moments(part: ExpandedPart, *values: Tensor) -> Tensor:
            moved = dict(zip(names, values, strict=True))
            moments = log_moments(self._part_weights(part, moved), part.factors)
            excess = part.following.excess(self.structure.unconstrain_population(moved))
            return torch.stack([moments[0] - excess, moments[1]])

        if len(self.parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([part_moments(part, *values) for part in self.parts], 1)
        parts = [
            checkpoint(part_moments, part, *values, use_reentrant=False) for part in self.parts
        ]
        return torch.cat(parts, 1)

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]
