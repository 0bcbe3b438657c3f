r"""Draws of the individuals that follow the population.

Draws :math:`u_{ik}` with the weighted mean :math:`m_i` that are made at a population
:math:`\Psi_0` are moved and stretched,

.. math:: u_{ik}(\Psi) = m_i + J_i\, \delta + e^{G_i(\delta)} (u_{ik} - m_i) , \qquad
          \delta = \Psi - \Psi_0, \qquad G_i(\delta) = \sum_p \delta_p\, G_{ip} ,

with the population in unconstrained coordinates. The map has the Jacobian
:math:`e^{\operatorname{tr} G_i(\delta)}`, so

.. math:: \hat p(y_i \mid \Psi) = \frac1K \sum_k
          \frac{p(y_i, u_{ik}(\Psi) \mid \Psi)\, e^{\operatorname{tr} G_i(\delta)}}{q_i(u_{ik})}

is unbiased at every population, and smooth. The log weights have the slopes

.. math:: s_{ikp} + g_{ik}^\top (J_{ip} + G_{ip} (u_{ik} - m_i)) + \operatorname{tr} G_{ip}

in the population, with the derivatives s and g of :math:`\log p(y_i, u \mid \Psi)` in the
population and in the individual parameters. J and G minimise the variance of these slopes over the
weighted draws: their elements are the coefficients of the regression of -s on g and on the products
of g and :math:`u - m`. In coordinates in which the posterior has the covariance 1, G is symmetric;
other matrices would turn a normal posterior into itself.

For a normal posterior J and G are the derivatives of its mean and scale, without Monte Carlo error,
and the log weights have no slopes left. Draws that stay where they are determine every parameter
that the individuals could compensate for, for instance the effect of a treatment on all
observations: its standard error is then too small (decision 050).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..numerics.cholesky import factored
from ..sampling.importance_weights import effective_sample_size, normalized_weights
from ..sampling.individuals import IndividualPosteriors
from ..sampling.student_mixture import StudentMixture
from .complete_scores import complete_scores
from .draw_moves import fitted_moves, num_products
from .fixed_draws import is_negligible, replace_impossible_draws


@dataclass(frozen=True)
class FollowingSettings:
    """Constants of the regression of the slopes."""

    # Draws per individual that the regression uses, and per coefficient where these are many. It
    # has no error where the posterior is normal, so that few are enough.
    max_draws: int = 300
    max_draws_per_coefficient: int = 12
    # Steps of the differences: in a parameter of the population, in units of its scale, and in an
    # individual parameter, in posterior standard deviations.
    relative_step: float = 1e-3
    individual_step: float = 0.03
    # Distance of a draw from the mean, in standard deviations, at which its move is measured.
    outer_draw: float = 2.0


FOLLOWING = FollowingSettings()


@dataclass(frozen=True, eq=False)
class Following:
    r"""How the draws of every individual move with the population.

    Args:
        center: The population that the draws were made at, unconstrained, shape
            ``(population,)``.
        directions: J, shape ``(individual, latent, population)``.
        rates: G, shape ``(individual, latent, latent, population)``.
        mean: Posterior mean of every individual parameter, unconstrained, shape ``(individual,
            latent)``.
        spread: Posterior standard deviations, same shape.
        scores: Gradients of the log likelihoods of the individuals at the center, shape
            ``(individual, population)``; zero where they are not known.
    """

    center: Tensor
    directions: Tensor
    rates: Tensor
    mean: Tensor
    spread: Tensor
    scores: Tensor

    @property
    def stays(self) -> bool:
        """Whether no draw moves at all."""
        return not bool(self.directions.any()) and not self.stretches

    @cached_property
    def stretches(self) -> bool:
        """Whether any draw is stretched."""
        return bool(self.rates.any())

    @property
    def share_stretched(self) -> float:
        """Share of the individuals whose draws are stretched."""
        return float(self.rates.flatten(1).any(1).double().mean())

    def moved(self, draws: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        r"""The draws at an unconstrained population, differentiable in it.

        Args:
            draws: Draws at the center, shape ``(draw, individual, latent)``.
            vector: The population, shape ``(population,)``.

        Returns:
            The draws, same shape, and the log Jacobian of the move, shape ``(individual,)``.
        """
        change = vector - self.center
        shift = self.directions @ change
        if not self.stretches:
            return draws + shift, shift.new_zeros(len(shift))
        stretch, log_det = self._stretch(change)
        offset = torch.einsum("nij,knj->kni", stretch, draws - self.mean)
        return offset + (self.mean + shift), log_det

    def _stretch(self, change: Tensor) -> tuple[Tensor, Tensor]:
        """The matrices exp(G), shape ``(individual, latent, latent)``, and their log determinants,
        shape ``(individual,)``.
        """
        rates = self.rates @ change
        return torch.linalg.matrix_exp(rates), rates.diagonal(dim1=-2, dim2=-1).sum(-1)

    def moved_mixture(self, mixture: StudentMixture, vector: Tensor) -> StudentMixture:
        """Mixtures of the individuals, moved and stretched like their draws."""
        change = vector - self.center
        stretch = self._stretch(change)[0].unsqueeze(1)
        offset = (stretch @ (mixture.means - self.mean.unsqueeze(1)).unsqueeze(-1)).squeeze(-1)
        means = (self.mean + self.directions @ change).unsqueeze(1) + offset
        if not self.stretches:
            return replace(mixture, means=means)
        scale = stretch @ mixture.scale_trils
        scales = factored(scale @ scale.transpose(-1, -2))
        # Far away the stretch of an individual may overflow; its mixture then stays.
        finite = (means.isfinite().flatten(1).all(1) & scales.isfinite().flatten(1).all(1))[:, None]
        return StudentMixture(
            mixture.log_weights,
            torch.where(finite[..., None], means, mixture.means),
            torch.where(finite[..., None, None], scales, mixture.scale_trils),
        )

    def distance(self, vector: Tensor) -> Tensor:
        """Largest move of an individual parameter of a draw in the outer part of the posterior, in
        posterior standard deviations, shape ``(individual,)``, differentiable.
        """
        change = vector - self.center
        relative = (self.directions @ change).abs() / self.spread
        if self.stretches:
            rates = (self.rates @ change).abs() * self.spread.unsqueeze(-2)
            relative = relative + FOLLOWING.outer_draw * rates.sum(-1) / self.spread
        return relative.amax(-1)

    def take(self, rows: Tensor) -> "Following":
        """The same for some of the individuals."""
        names = ("directions", "rates", "mean", "spread", "scores")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def only(self, coordinates: Tensor) -> "Following":
        """Draws that follow only some coordinates of the population; a boolean for each."""
        directions, rates = self.directions * coordinates, self.rates * coordinates
        return replace(self, directions=directions, rates=rates)

    def without_stretching(self) -> "Following":
        """Draws that are moved, but not stretched."""
        return replace(self, rates=torch.zeros_like(self.rates))


def follow(individuals: IndividualPosteriors, scale: Tensor) -> Following:
    r"""How weighted draws move with the population.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.

    Returns:
        The regression of the slopes. Draws of an individual whose slopes are not finite stay, and
        all draws of a likelihood-free estimate: the log density of the splines that the guide has
        learned has kinks in the individual parameters, so that moved draws would have no curvature.
        Draws of an individual with few effective draws are stretched in each parameter separately,
        or not at all.
    """
    structure = individuals.structure
    center = structure.unconstrain_population(individuals.population).detach()
    num_coefficients = num_products(individuals.unconstrained.shape[-1])
    most = max(FOLLOWING.max_draws, FOLLOWING.max_draws_per_coefficient * num_coefficients)
    log_weights, draws = individuals.log_weights[:most], individuals.unconstrained[:most]
    draws = replace_impossible_draws(draws, log_weights, is_negligible(log_weights))
    weights = normalized_weights(log_weights)
    mean = (weights.unsqueeze(-1) * draws).sum(0)
    offset = draws - mean
    covariance = torch.einsum("kn,kni,knj->nij", weights, offset, offset)
    spread = covariance.diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-12)
    num, d = spread.shape
    zero = spread.new_zeros
    p = len(center)
    stay = Following(center, zero(num, d, p), zero(num, d, d, p), mean, spread, zero(num, p))
    if structure.estimator == "likelihood-free":
        return stay
    slopes = _Slopes(individuals, draws, center)
    with torch.no_grad():
        scores = slopes.of_population(FOLLOWING.relative_step * scale)
        gradients = slopes.of_individuals(FOLLOWING.individual_step * spread)
    effective = effective_sample_size(log_weights)
    directions, rates = fitted_moves(covariance, offset, gradients, -scores, weights, effective)
    # The slopes of the moved draws have the same mean as the scores, and less Monte Carlo error.
    scores = scores + torch.einsum("kni,nip->knp", gradients, directions)
    scores = scores + torch.einsum("kni,nijp,knj->knp", gradients, rates, offset)
    scores = scores + rates.diagonal(dim1=1, dim2=2).sum(-1)
    scores = (weights.unsqueeze(-1) * scores).sum(0).nan_to_num(0.0, 0.0, 0.0)
    return replace(stay, directions=directions, rates=rates, scores=scores)


class _Slopes:
    """Derivatives of log p(y, u | Psi) at draws, by central differences."""

    def __init__(self, individuals: IndividualPosteriors, draws: Tensor, center: Tensor) -> None:
        self.structure, self.draws, self.center = individuals.structure, draws, center
        self.cohort = individuals.cohort.to(dtype=torch.float64)
        self.population = individuals.population
        self.repeated = self.cohort.repeat(len(draws))

    def of_population(self, steps: Tensor) -> Tensor:
        """In the unconstrained population, shape ``(draw, individual, population)``."""
        parts = (self.structure, self.cohort, self.repeated, self.draws, self.center)
        return complete_scores(*parts, steps)

    def of_individuals(self, steps: Tensor) -> Tensor:
        """In the unconstrained individual parameters, shape ``(draw, individual, latent)``; the
        steps have shape ``(individual, latent)``.
        """
        columns = []
        for shift in torch.eye(steps.shape[1], dtype=steps.dtype):
            ahead, behind = (self._density(x) for x in (steps * shift, -steps * shift))
            columns.append(ahead - behind)
        return torch.stack(columns, -1) / (2 * steps)

    def _density(self, move: Tensor) -> Tensor:
        density = self.structure.log_density(self.cohort, self.draws + move, self.population)
        return density.observation + density.individual
