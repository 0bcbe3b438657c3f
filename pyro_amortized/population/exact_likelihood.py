r"""The marginal likelihood of every individual on fixed draws, by the density of the model.

For draws :math:`u_{ik} \sim q_i`, which remain fixed while Psi moves,

.. math:: \log \hat p(y_i \mid \Psi) = \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}, c)\; p(u_{ik} \mid \Psi)}{q_i(u_{ik})}

is a smooth function of Psi. Every evaluation computes the density of all observations at all draws,
so it is used where these are not too many (:mod:`pyro_amortized.population.likelihood_choice`).
"""

import math

from torch import Tensor

from ..model import Population
from ..sampling.importance_weights import finite_or_zero_weight, log_moments
from ..sampling.individuals import IndividualPosteriors
from .fixed_draws import replace_impossible_draws


class ExactLikelihood:
    r"""Log p(y_i | Psi) by the density of the model.

    Args:
        individuals: The draws.
        impossible: True for draws that have a weight of zero at every population, shape ``(draw,
            individual)``. The model is not evaluated at them. Default: there are none.
    """

    def __init__(self, individuals: IndividualPosteriors, impossible: Tensor | None = None) -> None:
        self.individuals, self.impossible = individuals, impossible
        draws = individuals.unconstrained
        if impossible is not None:
            draws = replace_impossible_draws(draws, individuals.log_weights, impossible)
        self._density = individuals.structure.fixed_draws(individuals.cohort, draws)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        density = self._density(population)
        log_target = density.observation + density.individual
        log_weights = finite_or_zero_weight(log_target - self.individuals.log_proposal)
        if self.impossible is None:
            return log_weights
        return log_weights.masked_fill(self.impossible, -math.inf)

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        return log_moments(self.log_weights(population))

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]
