r"""Draws of the individuals that follow the population.

Draws :math:`u_{ik}` with the weighted mean :math:`m_i` that are made at a population
:math:`\Psi_0` are moved and stretched,

.. math:: u_{ik}(\Psi) = m_i + J_i\, \delta + e^{G_i(\delta)} (u_{ik} - m_i) , \qquad
          \delta = \Psi - \Psi_0, \qquad G_i(\delta) = \sum_p \delta_p\, G_{ip} ,

with the population in unconstrained coordinates. Where all population parameters are shared (a
model that is not centred), :math:`J_i\, \delta` is replaced by :math:`\varphi(G_i(\delta))\, J_i\,
\delta` with :math:`\varphi(G) = \int_0^1 e^{sG} ds`: the flow of the field :math:`J_i\, \delta +
G_i(\delta) (u - m_i)`. A parameter :math:`u = (\phi - \mu) / \omega` then moves with
:math:`\log \omega` exactly as it should. The map has the Jacobian
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

from ...numerics.cholesky import factored, positive_deviations
from ...sampling.student_mixture import StudentMixture


@dataclass(frozen=True)
class FollowingSettings:
    r"""Constants of the regression of the slopes.

    Args:
        max_draws: Draws per individual that the regression uses. It has no error where the
            posterior is normal, so that few are enough.
        max_draws_per_coefficient: Draws per coefficient, where there are so many coefficients that
            this is more.
        relative_step: Step of the differences in a parameter of the population, in units of its
            scale.
        individual_step: Step of the differences along the axes of an individual, in posterior
            standard deviations. Where the data determine a product of two parameters, a step of
            0.03 standard deviations in one of them was a whole one given the other: an expansion
            had an information of 84 where the density had 2.7.
        uncorrelated_part: Part of the correlations that is left out of the axes: no axis becomes
            shorter than a seventieth, where few draws are effective.
        outer_draw: Distance of a draw from the mean, in standard deviations, at which its move is
            measured.
        min_reach: Part of the move of an individual parameter with a large step of the population
            that counts as a posterior standard deviation where this is smaller. Of individuals that
            hardly vary the posterior is as narrow as the population, and rounds that may move by
            some of its standard deviations do not arrive: 40 rounds for 5 units with a standard
            deviation of .004.
    """

    max_draws: int = 300
    max_draws_per_coefficient: int = 12
    relative_step: float = 1e-3
    individual_step: float = 0.03
    uncorrelated_part: float = 2e-4
    outer_draw: float = 2.0
    min_reach: float = 1 / 30


FOLLOWING = FollowingSettings()


def reach_of(spread: Tensor, directions: Tensor, scale: Tensor) -> Tensor:
    r"""Unit of the distance that a draw has moved, shape ``(individual, latent)``.

    Args:
        spread: Posterior standard deviations, same shape.
        directions: J, shape ``(individual, latent, population)``.
        scale: Size of a large step in each unconstrained population parameter, zero for shared
            ones, shape ``(population,)``.
    """
    return spread.maximum(FOLLOWING.min_reach * (directions.abs() * scale).amax(-1))


def axes_of(covariance: Tensor) -> Tensor:
    """Cholesky factors of posterior covariances, shape ``(individual, latent, latent)``, with
    correlations that are slightly too small.
    """
    spread = positive_deviations(covariance)
    scale = spread.unsqueeze(2) * spread.unsqueeze(1)
    identity = torch.eye(spread.shape[1]).to(spread)
    part = FOLLOWING.uncorrelated_part
    return factored(scale * ((1 - part) * covariance / scale + part * identity))


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
        axes: Cholesky factors of the posterior covariances, shape ``(individual, latent,
            latent)``: the units of differences.
        reach: Unit of the distance that a draw has moved, shape ``(individual, latent)``: the
            posterior standard deviation, or a part of the move with the population where this is
            larger.
        scores: Gradients of the log likelihoods of the individuals at the center, less their bias,
            shape ``(individual, population)``; zero where they are not known.
        bias: What the gradients on the moved draws are too large by, of first order in the inverse
            number of draws (:mod:`pyro_amortized.population.following.score_bias`), same shape.
        score_covariance: Covariance of the Monte Carlo error of their sum over the individuals,
            shape ``(population, population)``; NaN where it is not known.
        flows: Whether the draws flow along the field of their moves: all population parameters are
            shared (decision 070).
        information_bias: What the information of each individual on the moved draws is too large
            by, likewise, shape ``(individual, population, population)``; None where the moves are
            not those of the regression.
    """

    center: Tensor
    directions: Tensor
    rates: Tensor
    mean: Tensor
    spread: Tensor
    axes: Tensor
    reach: Tensor
    scores: Tensor
    bias: Tensor
    score_covariance: Tensor
    flows: bool = False
    information_bias: Tensor | None = None

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

    @property
    def noise(self) -> float:
        """The gain in log likelihood that a round has to expect from the Monte Carlo errors of its
        draws and of those before it alone: the trace of the inverse information times the
        covariance of the error of the score; zero where this is not known.
        """
        unit, information = score_information(self.scores)
        errors = self.score_covariance / torch.outer(unit, unit)
        if not bool(errors.isfinite().all()):
            return 0.0
        return float(torch.cholesky_solve(errors, information).trace())

    def promised_gain(self, free: Tensor) -> float:
        """The gain of log likelihood that a step of scoring promises in some coordinates, a boolean
        for each.
        """
        scores = self.scores[:, free]
        unit, information = score_information(scores)
        total = (scores.sum(0) / unit).unsqueeze(1)
        return 0.5 * float((total * torch.cholesky_solve(total, information)).sum())

    def slope_error(self, direction: Tensor) -> float:
        """Monte Carlo standard error of the slope of the log likelihood of all individuals in a
        direction of the unconstrained population, shape ``(population,)``; NaN where it is not
        known.
        """
        variance = direction @ self.score_covariance @ direction
        return float(variance.clamp(min=0).sqrt())

    def moved(self, draws: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        r"""The draws at an unconstrained population, differentiable in it.

        Args:
            draws: Draws at the center, shape ``(draw, individual, latent)``.
            vector: The population, shape ``(population,)``.

        Returns:
            The draws, same shape, and the log Jacobian of the move, shape ``(individual,)``.
        """
        change = vector - self.center
        if not self.stretches:
            shift = self.directions @ change
            return draws + shift, shift.new_zeros(len(shift))
        stretch, shift, log_det = self._flow(change)
        offset = torch.einsum("nij,knj->kni", stretch, draws - self.mean)
        return offset + (self.mean + shift), log_det

    def _flow(self, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The matrices exp(G), shape ``(individual, latent, latent)``, the moves of the means,
        shape ``(individual, latent)``, and the log determinants, shape ``(individual,)``.
        """
        rates, shift = self.rates @ change, self.directions @ change
        log_det = rates.diagonal(dim1=-2, dim2=-1).sum(-1)
        if not self.flows:
            return torch.linalg.matrix_exp(rates), shift, log_det
        # The exponential of (G, J; 0, 0) holds exp(G) and phi(G) J.
        field = torch.cat([rates, shift.unsqueeze(-1)], -1)
        flow = torch.linalg.matrix_exp(torch.nn.functional.pad(field, (0, 0, 0, 1)))
        return flow[:, :-1, :-1], flow[:, :-1, -1], log_det

    def excess(self, vector: Tensor) -> Tensor:
        """What log p(y_i | Psi) on the moved draws is too large by at an unconstrained population,
        to first order, shape ``(individual,)``, differentiable.
        """
        return self.bias @ (vector - self.center)

    def moved_mixture(self, mixture: StudentMixture, vector: Tensor) -> StudentMixture:
        """Mixtures of the individuals, moved and stretched like their draws."""
        stretch, shift, _ = self._flow(vector - self.center)
        stretch = stretch.unsqueeze(1)
        offset = (stretch @ (mixture.means - self.mean.unsqueeze(1)).unsqueeze(-1)).squeeze(-1)
        means = (self.mean + shift).unsqueeze(1) + offset
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
        units of ``reach``, shape ``(individual,)``, differentiable.
        """
        change = vector - self.center
        relative = (self.directions @ change).abs() / self.reach
        if self.stretches:
            rates = (self.rates @ change).abs() * self.spread.unsqueeze(-2)
            relative = relative + FOLLOWING.outer_draw * rates.sum(-1) / self.reach
        return relative.amax(-1)

    def distances(self, vector: Tensor, scale: Tensor, is_shared: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`distance`, and the moves of the shared parameters in units of their scale, shape
        ``(shared,)``.
        """
        shared = (vector - self.center).abs() / scale
        return self.distance(vector), shared[is_shared]

    def take(self, rows: Tensor) -> "Following":
        """The same for some of the individuals."""
        names = ("directions", "rates", "mean", "spread", "axes", "reach", "scores", "bias")
        unknown = torch.full_like(self.score_covariance, torch.nan)
        taken = {name: getattr(self, name)[rows] for name in names}
        bias = None if self.information_bias is None else self.information_bias[rows]
        return replace(self, **taken, score_covariance=unknown, information_bias=bias)

    def only(self, coordinates: Tensor) -> "Following":
        """Draws that follow only some coordinates of the population; a boolean for each."""
        directions, rates = self.directions * coordinates, self.rates * coordinates
        return replace(self, directions=directions, rates=rates)._of_other_moves()

    def along_flow(self) -> "Following":
        """Draws that flow. Along the logarithm of a standard deviation of a centred model the
        straight lines of :meth:`moved` are wrong in second order, in the distance of the mean of
        the draws from the mean of the population; moves of several parameters together are worse.
        """
        return replace(self, flows=True)

    def without_stretching(self) -> "Following":
        """Draws that are moved, but not stretched."""
        return replace(self, rates=torch.zeros_like(self.rates))._of_other_moves()

    def _of_other_moves(self) -> "Following":
        """The same without what is known of the moves that the scores were computed with."""
        unknown = torch.full_like(self.score_covariance, torch.nan)
        bias = torch.zeros_like(self.bias)
        return replace(self, bias=bias, information_bias=None, score_covariance=unknown)


def score_information(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Units of the scores, and the Cholesky factor of the sum of their outer products in them."""
    unit = scores.square().sum(0).sqrt().clamp(min=1e-300)
    return unit, factored((scores / unit).T @ (scores / unit))
