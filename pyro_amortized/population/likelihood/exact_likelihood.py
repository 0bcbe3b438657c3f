r"""The marginal likelihood of every individual by the density of the model.

On draws :math:`u_{ik}(\Psi)` that follow the population
(:mod:`pyro_amortized.population.following.following_draws`),

.. math:: \log \hat p(y_i \mid \Psi) = \log \frac1K \sum_k
          \frac{p(y_i, u_{ik}(\Psi) \mid \Psi)\, |\partial u_{ik}(\Psi) / \partial u_{ik}|}
          {q_i(u_{ik})}

is a smooth function of Psi; the weights are multiplied with the factors of their control variates.
Every evaluation computes the density of all observations at all draws, so it is used where these
are not too many (:mod:`pyro_amortized.population.likelihood.likelihood_choice`).
"""

import copy
import math

import torch
from torch import Tensor

from ...model import Population
from ...sampling.importance_weights import finite_or_zero_weight, log_moments
from ...sampling.individuals import IndividualPosteriors
from ..following.fixed_draws import without_negligible
from ..following.following_draws import Following


class ExactLikelihood:
    r"""Log p(y_i | Psi) by the density of the model.

    Draws of weight zero keep this weight; the model is not evaluated at them.

    Args:
        individuals: The draws.
        following: How the draws follow the population.
    """

    is_expanded = False
    noise = 0.0

    def __init__(self, individuals: IndividualPosteriors, following: Following) -> None:
        self.individuals, self.following = individuals, following
        self.draws, self.impossible = without_negligible(
            individuals.unconstrained, individuals.log_weights
        )
        self._density = individuals.structure.prepared_density(individuals.cohort, self.draws)

    def along_flow(self) -> "ExactLikelihood":
        """The same on draws that flow, for moves along a single parameter."""
        likelihood = copy.copy(self)
        likelihood.following = self.following.along_flow()
        return likelihood

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        vector = self.individuals.structure.unconstrain_population(population)
        draws, log_det = self.following.moved(self.draws, vector)
        density = self._density(population, draws)
        log_weights = finite_or_zero_weight(density.total + log_det - self.individuals.log_proposal)
        return log_weights.masked_fill(self.impossible, -math.inf)

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        moments = log_moments(self.log_weights(population), self.individuals.factors)
        vector = self.individuals.structure.unconstrain_population(population)
        return torch.stack([moments[0] - self.following.excess(vector), moments[1]])

    def distances(self, population: Population) -> tuple[Tensor, Tensor]:
        """The moves of the draws from where they were made, in posterior standard deviations,
        shape ``(individual,)``; the shared parameters have no limit: shape ``(0,)``.
        """
        vector = self.individuals.structure.unconstrain_population(population)
        return self.following.distance(vector), vector.new_zeros(0)

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]
