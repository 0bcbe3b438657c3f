r"""The marginal likelihood on points about the modes, which follow the population.

The points of every individual are moved and stretched as draws are
(:mod:`pyro_amortized.population.following.following_draws`). The stretch is one factor along each
axis of the points: with two points on each axis no more can be found, and for a normal population
it is what the standard deviations of the individual parameters need.
"""

import math

import torch
from torch import Tensor

from ....model import Population
from ....numerics.small_sums import quadratic_form
from ....sampling.importance_weights import finite_or_zero_weight, log_moments
from ...following.complete_scores import individual_scores
from ...following.draw_moves import coefficients, standardized
from ...following.following_draws import FOLLOWING, Following, reach_of
from ...likelihood.expanded_likelihood import limited_rise
from .modal_points import MODAL, ModalPoints, group_terms, point_weights

# Largest change of the logarithm of an axis with a unit of an unconstrained population parameter.
# For a normal posterior that the population alone determines it is one.
MAX_STRETCH = 1.0


class ModalLikelihood:
    r"""Log p(y_i | Psi) on points about the modes.

    Args:
        individuals: The points.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
    """

    is_expanded = True

    def __init__(self, individuals: ModalPoints, scale: Tensor) -> None:
        self.individuals, self.scale = individuals, scale
        self.structure = individuals.structure
        self.is_shared = self.structure.coordinates(self.structure.shared)
        self.noise = float(individuals.marginal_estimate.mc_error.norm())
        num_points = individuals.num_draws
        self.repeated = individuals.cohort.to(dtype=torch.float64).repeat(num_points)
        with torch.no_grad():
            self.following = self._followed()
        value = individuals.observations.value
        self.offset = value - individuals.log_proposal
        self.headroom = value.amax(0) - value + MODAL.free_rise

    def _followed(self) -> Following:
        individuals = self.individuals
        points, weights = individuals.unconstrained, point_weights(individuals.log_weights)
        center = self.structure.unconstrain_population(individuals.population).detach()
        mean = (weights.unsqueeze(-1) * points).sum(0)
        scores, gradients = self._slopes(center)
        directions, rates = self._moves(points - mean, gradients, -scores)
        slopes = scores + torch.einsum("kni,nip->knp", gradients, directions)
        slopes = slopes + torch.einsum("kni,nijp,knj->knp", gradients, rates, points - mean)
        slopes = slopes + rates.diagonal(dim1=1, dim2=2).sum(-1)
        total = torch.einsum("kn,knp->np", weights, slopes.nan_to_num(0.0, 0.0, 0.0))
        unknown = torch.full((len(center),) * 2, torch.nan).double()
        spread, flows = individuals.observations.spread, bool(self.is_shared.all())
        reach = reach_of(spread, directions, ~self.is_shared * self.scale)
        moves = (directions, rates, mean, spread, spread.diag_embed(), reach)
        return Following(center, *moves, total, torch.zeros_like(total), unknown, flows)

    def _slopes(self, center: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes of the log density of the complete data at the points, in the population and in
        the individual parameters.
        """
        individuals, structure = self.individuals, self.structure
        observations, points = individuals.observations, individuals.unconstrained
        num_latent, steps = points.shape[-1], FOLLOWING.individual_step * observations.spread
        own = [
            structure.log_individual_of(self.repeated, points + unit, individuals.population)
            - structure.log_individual_of(self.repeated, points - unit, individuals.population)
            for unit in torch.diag_embed(steps).unbind(1)
        ]
        observed, shared = observations.gradient.split(
            [num_latent, observations.gradient.shape[-1] - num_latent], -1
        )
        gradients = observed / observations.spread + torch.stack(own, -1) / (2 * steps)
        relative = FOLLOWING.relative_step * self.scale
        scores = individual_scores(structure, self.repeated, points, center, relative)
        scores[..., self.is_shared] += shared / self.scale[self.is_shared]
        return scores, gradients

    def _moves(self, offset: Tensor, gradients: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Moves of the points, and their stretches along the axes; moves alone where the regression
        on both is not finite.
        """
        root = self.individuals.refinement.mixture.scale_trils[:, 0]
        inverse, standard, slopes = standardized(root, offset, gradients)
        weights = torch.full(offset.shape[:2], 1 / len(offset)).to(offset)
        location, stretch, _ = coefficients(slopes, slopes * standard, target, weights)
        stretch = stretch.clamp(-MAX_STRETCH, MAX_STRETCH)
        directions = torch.einsum("nij,njp->nip", root, location)
        return directions, torch.einsum("nia,nap,naj->nijp", root, stretch, inverse)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the points, shape ``(point, individual)``, differentiable."""
        observations, points = self.individuals.observations, self.individuals.unconstrained
        vector = self.structure.unconstrain_population(population)
        moved, log_det = self.following.moved(points, vector)
        shared = observations.coordinates.shared_units @ (vector - self.following.center)
        everywhere = shared.expand(*points.shape[:2], -1)
        x = torch.cat([(moved - points) / observations.spread, everywhere], -1)
        rise = quadratic_form(observations.gradient, observations.hessian, x)
        log_individual = self.structure.log_individual_of(self.repeated, moved, population)
        log_weights = log_individual + self.offset + log_det + limited_rise(rise, self.headroom)
        return finite_or_zero_weight(log_weights)

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        log_weights = self.log_weights(population)
        total = log_weights[0] + group_terms(log_weights).sum(0)
        return torch.stack([total.nan_to_num(-math.inf), log_moments(log_weights)[1]])

    def distances(self, population: Population) -> tuple[Tensor, Tensor]:
        """As those of the expanded likelihood."""
        vector = self.structure.unconstrain_population(population)
        return self.following.distances(vector, self.scale, self.is_shared)

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]
