r"""The marginal likelihood of a large cohort to second order about the population of the draws.

With the scores :math:`S_i` of the individuals at the population :math:`\Psi_0` of the draws and
:math:`\delta = \Psi - \Psi_0`,

.. math:: \log \hat p(y_i \mid \Psi) \approx \log \hat p(y_i \mid \Psi_0) + S_i^\top \delta
          - \tfrac12 (S_i^\top \delta)^2 .

The scores are those of draws that follow the population
(:mod:`pyro_amortized.population.following.following_draws`), so that nothing is pinned and their
Monte Carlo error is small. The sum of their outer products is the information of many individuals,
but for an error that falls with their number (Berndt et al. 1974). The rounds of a fit therefore
end at the same maximum as with the expanded likelihood, after a few more rounds, each of which
takes a quarter of the evaluations (decision 067). Its memory does not depend on the number of draws
(decision 071).

References:
    Berndt, Hall, Hall, Hausman (1974), Estimation and Inference in Nonlinear Structural Models,
    Annals of Economic and Social Measurement 3.
"""

import torch
from torch import Tensor

from ...model import Population
from .large_cohorts.summarized_draws import SummarizedDraws
from .likelihood_interface import Gains


class QuadraticLikelihood:
    r"""Log p(y_i | Psi) to second order about the population of the draws.

    Args:
        individuals: What is kept of the draws, of a model with a density.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
    """

    is_expanded = True

    def __init__(self, individuals: SummarizedDraws, scale: Tensor) -> None:
        self.individuals, self.scale = individuals, scale
        self.structure = individuals.structure
        self.is_shared = self.structure.coordinates(self.structure.shared)
        self.following = individuals.summary.following
        self.base = individuals.summary.moments
        self.noise = self.following.noise

    def gains(self, population: Population) -> Gains:
        """Changes from the population of the draws."""
        change = self._change(population)
        return Gains(self._rise(change), change.new_tensor([self.following.slope_error(change)]))

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), and log ESS at the population of the draws, shape ``(2, individual)``,
        differentiable.
        """
        return torch.stack([self.base[0] + self._rise(self._change(population)), self.base[1]])

    def distances(self, population: Population) -> tuple[Tensor, Tensor]:
        """As those of the expanded likelihood."""
        vector = self.structure.unconstrain_population(population)
        return self.following.distances(vector, self.scale, self.is_shared)

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]

    def _rise(self, change: Tensor) -> Tensor:
        rise = self.following.scores @ change
        return rise - 0.5 * rise.square()

    def _change(self, population: Population) -> Tensor:
        return self.structure.unconstrain_population(population) - self.following.center
