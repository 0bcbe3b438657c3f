r"""Draws of the individuals that follow the population.

Draws :math:`u_{ik}` that are made at a population :math:`\Psi_0` are moved linearly,

.. math:: u_{ik}(\Psi) = u_{ik} + J_i\, (\Psi - \Psi_0) ,

with the population in unconstrained coordinates. A shift has no Jacobian, so the density of the
proposal remains, and

.. math:: \hat p(y_i \mid \Psi) = \frac1K \sum_k
          \frac{p(y_i, u_{ik}(\Psi) \mid \Psi)}{q_i(u_{ik})}

is unbiased at every population, and smooth. The log weights have the slopes
:math:`s_{ik} + J_i^\top g_{ik}` in the population, with the derivatives s and g of
:math:`\log p(y_i, u \mid \Psi)` in the population and in the individual parameters. J minimises
the variance of these slopes over the weighted draws: it is the regression of -s on g,

.. math:: J_i = -\mathrm{Cov}(g_i)^{-1}\, \mathrm{Cov}(g_i, s_i) .

For a normal posterior this is the derivative of its mean, without Monte Carlo error. Draws that
stay where they are determine every parameter that the individuals could compensate for, for
instance the effect of a treatment on all observations: its standard error is then too small
(decision 050).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..sampling.importance_weights import normalized_weights
from ..sampling.individuals import IndividualPosteriors
from .fixed_draws import replace_impossible_draws


@dataclass(frozen=True)
class FollowingSettings:
    """Constants of the regression of the slopes."""

    # Draws per individual that the regression uses. It has no error where the posterior is normal,
    # so that few are enough.
    max_draws: int = 300
    # Steps of the differences: in a parameter of the population, in units of its scale, and in an
    # individual parameter, in posterior standard deviations.
    relative_step: float = 1e-3
    individual_step: float = 0.03
    # Added to the covariance of g, as a part of its diagonal.
    jitter: float = 1e-9


FOLLOWING = FollowingSettings()


@dataclass(frozen=True, eq=False)
class Following:
    r"""How the draws of every individual move with the population.

    Args:
        center: The population that the draws were made at, unconstrained, shape
            ``(population,)``.
        directions: J, shape ``(individual, latent, population)``.
        spread: Posterior standard deviation of every individual parameter, unconstrained, shape
            ``(individual, latent)``.
    """

    center: Tensor
    directions: Tensor
    spread: Tensor

    @property
    def stays(self) -> bool:
        """Whether no draw moves at all."""
        return not bool(self.directions.any())

    def move(self, vector: Tensor) -> Tensor:
        """Move of the draws from the center to an unconstrained population, shape ``(individual,
        latent)``, differentiable.
        """
        return self.directions @ (vector - self.center)

    def take(self, rows: Tensor) -> "Following":
        """The same for some of the individuals."""
        return Following(self.center, self.directions[rows], self.spread[rows])

    def only(self, coordinates: Tensor) -> "Following":
        """Draws that follow only some coordinates of the population; a boolean for each."""
        return Following(self.center, self.directions * coordinates, self.spread)


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
    """
    structure = individuals.structure
    center = structure.unconstrain_population(individuals.population).detach()
    log_weights = individuals.log_weights[: FOLLOWING.max_draws]
    draws = individuals.unconstrained[: FOLLOWING.max_draws]
    draws = replace_impossible_draws(draws, log_weights, log_weights == -math.inf)
    weights = normalized_weights(log_weights)
    mean = (weights.unsqueeze(-1) * draws).sum(0)
    spread = (weights.unsqueeze(-1) * (draws - mean) ** 2).sum(0).sqrt().clamp(min=1e-12)
    if structure.estimator == "likelihood-free":
        return Following(center, torch.zeros(*spread.shape, len(center)).double(), spread)
    slopes = _Slopes(individuals, draws, center)
    with torch.no_grad():
        scores = slopes.of_population(FOLLOWING.relative_step * scale)
        gradients = slopes.of_individuals(FOLLOWING.individual_step * spread)
    directions = _regression(gradients * spread, -scores, weights) * spread.unsqueeze(-1)
    finite = directions.isfinite().flatten(1).all(1)
    return Following(center, torch.where(finite[:, None, None], directions, 0.0), spread)


def _regression(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Coefficients of the weighted regression of y ``(draw, individual, population)`` on x ``(draw,
    individual, latent)``, shape ``(individual, latent, population)``.
    """
    w = weights.unsqueeze(-1)
    x, y = x - (w * x).sum(0), y - (w * y).sum(0)
    squares = torch.einsum("kn,kni,knj->nij", weights, x, x)
    jitter = FOLLOWING.jitter * squares.diagonal(dim1=1, dim2=2).clamp(min=1e-300)
    products = torch.einsum("kn,kni,knp->nip", weights, x, y)
    factor, info = torch.linalg.cholesky_ex(squares + jitter.diag_embed())
    solution = torch.cholesky_solve(products, factor)
    return torch.where((info == 0)[:, None, None], solution, torch.nan)


class _Slopes:
    """Derivatives of log p(y, u | Psi) at draws, by central differences."""

    def __init__(self, individuals: IndividualPosteriors, draws: Tensor, center: Tensor) -> None:
        self.structure, self.draws, self.center = individuals.structure, draws, center
        self.cohort = individuals.cohort.to(dtype=torch.float64)
        self.population = individuals.population
        self.repeated = self.cohort.repeat(len(draws))

    def of_population(self, steps: Tensor) -> Tensor:
        """In the unconstrained population, shape ``(draw, individual, population)``."""
        structure, center = self.structure, self.center
        shared = structure.coordinates(structure.shared).nonzero()[:, 0].tolist()
        ends = [
            (structure.constrain_population(center + x), structure.constrain_population(center - x))
            for x in torch.diag(steps)
        ]
        columns = [
            structure.log_individual_of(self.repeated, self.draws, ahead)
            - structure.log_individual_of(self.repeated, self.draws, behind)
            for ahead, behind in ends
        ]
        moved = [population for j in shared for population in ends[j]]
        if moved:
            observations = structure.log_observations(self.cohort, self.draws, moved)
            for place, j in enumerate(shared):
                ahead, behind = observations[2 * place : 2 * place + 2]
                columns[j] = columns[j] + ahead - behind
        return torch.stack(columns, -1) / (2 * steps)

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
