r"""A few points about the mode of every individual, which stand for draws of its posterior.

With the mode m and :math:`L L^\top` the inverse curvature there, the points are m and
:math:`m \pm \sqrt 3\, L e_j`. They have the weights
:math:`w = p(y, u \mid \Psi) / N(u; m, L L^\top)`, and

.. math:: \log \hat p(y_i \mid \Psi) = \log w_0 + \sum_G
          \log \Big( 1 + \sum_{j \in G} \Big(
          \frac{w_{j+} + w_{j-}}{6\, w_0} - \frac13 \Big) \Big) .

The first term is the Laplace approximation. The groups G of at most three axes add the cubature of
what is not normal along them; with more axes in one, the mode would have a negative weight. The
approximation is exact for a normal posterior, and of degree five along every axis. A point costs as
much as a draw, and there are 2 d + 1 of them.

The observations are expanded about the points in the individual and the shared parameters. Where
the log density at the points is far from quadratic, along a curved ridge for example, they are
evaluated closer to the mode, and values and slopes are extrapolated to second order.

References:
    Tierney, Kadane (1986), Accurate Approximations for Posterior Moments and Marginal Densities,
    Journal of the American Statistical Association 81; Pinheiro, Bates (1995), Approximations to
    the Log-Likelihood Function in the Nonlinear Mixed-Effects Model, Journal of Computational and
    Graphical Statistics 4 (quadrature about the mode, there in all dimensions together).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ....cohort import Cohort
from ....model import ModelStructure, Population
from ....numerics.finite_differences import expansion
from ....numerics.newton_steps import climb
from ....runtime.solver_context import SolutionCache, caching
from ....runtime.threads import threads_for
from ....sampling.counted_density import CountedDensity
from ....sampling.importance_weights import ImportanceEstimate, finite_or_zero_weight
from ....sampling.individual_sampler import make_sampler
from ....sampling.individuals import IndividualPosteriors, individual_posteriors
from ....sampling.mode_mixture import find_modes
from ....sampling.refinement_settings import REFINEMENT
from ....sampling.sampler import Sampler
from ....sampling.sampling_stage import Stage
from ....sampling.student_mixture import StudentMixture
from ....sampling.weighted_draws import Refinement, Sampled, Weighted
from ....sampling.weighted_fits import guide_mixture
from ...likelihood.expansion_coordinates import Coordinates, MovedObservations


@dataclass(frozen=True)
class ModalSettings:
    """How the modes are found, and when values at the points are extrapolated."""

    # Draws of the population that the first search for the modes starts from.
    num_pilot_draws: int = 40
    # Newton steps from known modes: the first one moves, the second one shows the curvature there.
    num_newton_steps: int = 2
    # Range of the log weights of an individual beyond which its points are evaluated closer to the
    # mode, at this share of the distance.
    max_range: float = 3.0
    near_share: float = 0.25
    # Axes of a group, and the smallest factor of one: where all its ends have weight zero, that of
    # three axes would be zero.
    least_factor: float = 1e-6
    group_size: int = 3
    # Error of a difference between two populations, as a share of what the axes add to the Laplace
    # approximation: the error of each of them is larger, but nearly the same. With a third of it,
    # rounds went back and forth between populations of which one was worse.
    error_share: float = 0.1
    # As ``EXPANSION.free_rise``. Points about a mode have no draws in the tails that could take all
    # of the weight; with less, rounds ended farther from the maximum.
    free_rise: float = 5.0


MODAL = ModalSettings()


@dataclass(frozen=True, eq=False)
class ObservationsAtPoints:
    r"""Log densities of the observations at the points, and their derivatives.

    Args:
        value: Shape ``(point, individual)``.
        gradient: In individual and shared parameters, shape ``(point, individual, coordinate)``.
        hessian: At the mode, shape ``(individual, coordinate, coordinate)``.
        coordinates: The coordinates.
        spread: Units of the individual parameters, shape ``(individual, latent)``.
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    coordinates: Coordinates
    spread: Tensor


@dataclass(frozen=True, eq=False)
class ModalPoints(IndividualPosteriors):
    """The points as weighted draws, with the derivatives of the observations there."""

    observations: ObservationsAtPoints

    @property
    def marginal_estimate(self) -> ImportanceEstimate:
        """The approximation of log p(y_i | Psi), and about the error of differences."""
        terms = group_terms(self.log_weights)
        error = MODAL.error_share * terms.square().sum(0).sqrt()
        return replace(
            self.estimate,
            log_mean=self.log_weights[0] + terms.sum(0),
            mc_error=error.nan_to_num(math.inf),
        )


def unit_points(num_latent: int) -> Tensor:
    """The points of a standard normal distribution, shape ``(2 * num_latent + 1, num_latent)``: the
    mode, forwards, backwards.
    """
    axes = math.sqrt(3) * torch.eye(num_latent, dtype=torch.float64)
    return torch.cat([axes.new_zeros(1, num_latent), axes, -axes])


def group_terms(log_weights: Tensor) -> Tensor:
    """What each group of axes adds to the log weight of the mode, shape ``(group, individual)``,
    for log weights of the points ``(point, individual)``; NaN where that of the mode is not finite.
    """
    ends = (log_weights[1:] - log_weights[0] - math.log(6)).exp()
    added = torch.stack(ends.chunk(2)).sum(0) - 1 / 3
    groups = [1 + x.sum(0) for x in added.split(MODAL.group_size)]
    return torch.stack(groups).clamp(min=MODAL.least_factor).log()


def point_weights(log_weights: Tensor) -> Tensor:
    """Derivatives of the approximation in the log weights, shape ``(point, individual)``. Their sum
    is one; that of the mode may be negative.
    """
    ends = (log_weights[1:] - log_weights[0] - math.log(6)).exp()
    factors = group_terms(log_weights).exp().repeat_interleave(MODAL.group_size, 0)
    weights = (ends / factors[: len(ends) // 2].repeat(2, 1)).nan_to_num(0.0)
    return torch.cat([1 - weights.sum(0, keepdim=True), weights])


def points_about_modes(
    structure: ModelStructure,
    cohort: Cohort,
    population: Population,
    scale: Tensor,
    known: Refinement | None,
    generator: Generator,
) -> ModalPoints:
    r"""The points of all individuals at a population.

    Args:
        structure: The model, which has a density.
        cohort: The data.
        population: Values of the population sites.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
        known: Mixtures whose largest components are near the modes. Default: the modes are found
            from draws of the population.
        generator: Source of randomness of these.
    """
    cohort = cohort.to(dtype=torch.float64)
    num, num_points = len(cohort), 2 * len(structure.latent_names) + 1
    threads = threads_for(num_points * cohort.num_values)
    with torch.no_grad(), threads, caching(SolutionCache()):
        sampler = make_sampler(None, structure, cohort, population)
        density = CountedDensity(sampler.target, num)
        sampler = replace(sampler, target=density)
        known = _found(sampler, num, generator) if known is None else known
        mode, root = _climbed(sampler, known.mixture)
        points, log_proposal = _points(mode, root)
        exact = structure.log_density(cohort, points, population)
        log_weights = finite_or_zero_weight(exact.total - log_proposal)
        is_near = (log_weights - log_weights[0]).abs().amax(0) <= MODAL.max_range
        share = torch.where(is_near, 1.0, MODAL.near_share).double()
        spread = root.norm(dim=-1).clamp(min=1e-12)
        is_shared = structure.coordinates(structure.shared)
        coordinates = Coordinates.of_parameters(spread.diag_embed(), is_shared, scale)
        moved = MovedObservations(structure, cohort, points, population, coordinates, None, True)
        observations = _observations(moved, mode, share, spread)
        value = torch.where(is_near, exact.observation, observations.value)
        log_weights = finite_or_zero_weight(value + exact.individual - log_proposal)
    one = StudentMixture(mode.new_zeros(num, 1), mode.unsqueeze(1), root.unsqueeze(1))
    refinement = known.with_mixtures(torch.arange(num), one).at(Stage.MIXTURE)
    sampled = Sampled(Weighted(points, log_proposal, log_weights), refinement)
    drawn = individual_posteriors(structure, cohort, population, sampled, density.evaluations)
    return ModalPoints(**vars(drawn), observations=replace(observations, value=value))


def _found(sampler: Sampler, num: int, generator: Generator) -> Refinement:
    """The modes that Newton steps from draws of the population lead to."""
    rows = torch.arange(num)
    pilot = sampler.from_proposal(MODAL.num_pilot_draws, rows, generator)
    modes = find_modes(sampler.target_of_each, pilot.draws, pilot.log_weights)
    nothing = Refinement.none(pilot, REFINEMENT.max_components, REFINEMENT.num_guide_components)
    shape = guide_mixture(pilot.draws, generator)
    return nothing.with_guides(rows, shape).with_mixtures(rows, modes.mixture)


def _climbed(sampler: Sampler, mixture: StudentMixture) -> tuple[Tensor, Tensor]:
    """The modes near the largest components, and the scales there."""
    rows, largest = torch.arange(len(mixture.means)), mixture.log_weights.argmax(1)
    mean, scale_tril = mixture.means[rows, largest], mixture.scale_trils[rows, largest]
    starts = (mean.unsqueeze(0), scale_tril.unsqueeze(0))
    mode, root, _ = climb(sampler.target_of_each, *starts, MODAL.num_newton_steps)
    return mode[0], root[0]


def _points(mode: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """The points and the log density of the normal distribution there."""
    unit = unit_points(mode.shape[-1])
    points = mode + torch.einsum("nij,kj->kni", root, unit)
    log_det = root.diagonal(dim1=1, dim2=2).log().sum(-1)
    constant = -0.5 * (unit.square().sum(1) + mode.shape[-1] * math.log(2 * math.pi))
    return points, constant.unsqueeze(-1) - log_det


def _observations(
    at_points: MovedObservations, mode: Tensor, share: Tensor, spread: Tensor
) -> ObservationsAtPoints:
    """Values and slopes at the points, from places at a share of their distance from the mode, and
    second derivatives at the mode.
    """
    coordinates = at_points.coordinates
    at_center = replace(at_points, draws=mode.unsqueeze(0))
    at_places = replace(at_points, draws=mode + share[:, None] * (at_points.draws - mode))
    nowhere, units = torch.zeros_like(coordinates.steps), torch.diag(coordinates.steps)
    (at_mode,) = at_center([nowhere])
    slopes, hessian = expansion(at_center, coordinates.steps, at_mode)
    value, *around = at_places([nowhere, *units, *-units])
    ahead, behind = torch.stack(around, -1).split(len(units), -1)
    gradient = (ahead - behind) / (2 * coordinates.steps)
    return ObservationsAtPoints(
        _extrapolated(at_mode, value, share),
        _extrapolated(slopes, gradient, share.unsqueeze(-1)).nan_to_num(0.0, 0.0, 0.0),
        hessian[0],
        coordinates,
        spread,
    )


def _extrapolated(center: Tensor, places: Tensor, share: Tensor) -> Tensor:
    """Values at the points, from those in the center and at a share of their distance from it."""
    ahead, behind = places[1:].chunk(2)
    odd = (ahead - behind) / (2 * share)
    even = (ahead + behind - 2 * center) / (2 * share.square())
    return torch.cat([center, center + odd + even, center - odd + even])
