"""What the search for a maximum needs of a marginal likelihood on weighted draws."""

from typing import Protocol

from torch import Tensor

from ..model import Population
from ..sampling.individuals import IndividualPosteriors
from .following_draws import Following


class Likelihood(Protocol):
    """Log p(y_i | Psi) on weighted draws of the individuals that follow the population."""

    individuals: IndividualPosteriors
    following: Following
    # Whether the observations are expanded about the draws: accurate near them only.
    is_expanded: bool
    # Gain of a round that is expected from Monte Carlo error alone, where it is known.
    noise: float

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        ...

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        ...

    def distances(self, population: Population) -> tuple[Tensor, Tensor]:
        """How far a population is from where the likelihood is accurate: the largest move of an
        individual parameter, in posterior standard deviations, shape ``(individual,)``, and the
        moves of the shared parameters in units of their scale, shape ``(shared,)``, empty where
        they do not matter; differentiable.
        """
        ...

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        ...
