"""What the search for a maximum needs of a marginal likelihood on weighted draws."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure, Population
from ...sampling.importance_weights import ImportanceEstimate, log_mean_difference
from ...sampling.individuals import IndividualPosteriors
from ...sampling.weighted_draws import Refinement
from ..following.following_draws import Following


class Drawn(Protocol):
    """Draws of every individual at a population, or what is kept of them."""

    @property
    def structure(self) -> ModelStructure:
        """Structure of the model."""
        ...

    @property
    def cohort(self) -> Cohort:
        """The data."""
        ...

    @property
    def population(self) -> Mapping[str, Tensor]:
        """The population that the draws were made at."""
        ...

    @property
    def num_draws(self) -> int:
        """Number of draws of each individual."""
        ...

    @property
    def refinement(self) -> Refinement:
        """The mixtures that the draws come from."""
        ...

    @property
    def marginal_estimate(self) -> ImportanceEstimate:
        """Log p(y_i | Psi) with its Monte Carlo error, shape ``(individual,)`` each."""
        ...


class Gains(NamedTuple):
    """Changes of log p(y_i | Psi) between two populations, shape ``(individual,)``, and Monte Carlo
    standard errors whose squares sum to that of the sum, any shape.
    """

    changes: Tensor
    errors: Tensor


class Likelihood(Protocol):
    """Log p(y_i | Psi) on weighted draws of the individuals that follow the population."""

    following: Following
    # Whether the observations are expanded about the draws: accurate near them only.
    is_expanded: bool
    # Gain of a round that is expected from Monte Carlo error alone, where it is known.
    noise: float

    @property
    def individuals(self) -> Drawn:
        """The draws, or what is kept of them."""
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


class WeightedLikelihood(Likelihood, Protocol):
    """A likelihood that keeps its draws."""

    @property
    def individuals(self) -> IndividualPosteriors:
        """The draws."""
        ...

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        ...


def gains_on_draws(
    likelihood: WeightedLikelihood, start: Population
) -> Callable[[Population], Gains]:
    """Changes of a likelihood from one population to others, on the same draws."""
    before = likelihood.log_weights(start)

    def gains(population: Population) -> Gains:
        return Gains(*log_mean_difference(likelihood.log_weights(population), before))

    return gains
