r"""The marginal likelihood by the density of the model."""

import math

from torch import Tensor

from ..model import Population
from ..sampling.importance_weights import finite_or_zero_weight, log_moments
from ..sampling.individuals import IndividualPosteriors
from .fixed_draws import with_stand_ins


class ExactLikelihood:
    r"""Log p(y_i | Psi) by running the whole program; for few individuals.

    Args:
        individuals: The draws.
        dead: Draws that count as impossible wherever the population goes, shape ``(draw,
            individual)``; the program is not run at them. Default: none.
    """

    def __init__(self, individuals: IndividualPosteriors, dead: Tensor | None = None) -> None:
        self.individuals, self.dead = individuals, dead
        draws = individuals.unconstrained
        if dead is not None:
            draws = with_stand_ins(draws, individuals.log_weights, dead)
        self._density = individuals.structure.fixed_draws(individuals.cohort, draws)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        found = self._density(population)
        log_target = found.observation + found.individual
        log_weights = finite_or_zero_weight(log_target - self.individuals.log_proposal)
        return log_weights if self.dead is None else log_weights.masked_fill(self.dead, -math.inf)

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        return log_moments(self.log_weights(population))

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]
