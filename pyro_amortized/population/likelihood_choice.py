r"""The choice between the exact and the expanded marginal likelihood.

The exact one evaluates all observations at all draws for every population. The expanded one
evaluates them once, and is accurate near the population that it is expanded about.
"""

from dataclasses import dataclass

from torch import Tensor

from ..numerics.maximization import value_and_gradient
from ..runtime.solver_context import SolutionCache, caching
from ..sampling.individuals import IndividualPosteriors
from .exact_likelihood import ExactLikelihood
from .expanded_likelihood import ExpandedLikelihood
from .following_draws import follow
from .likelihood_interface import Likelihood


@dataclass(frozen=True)
class ChoiceSettings:
    """Number of observations times draws beyond which the observations are expanded."""

    # The exact likelihood is evaluated at some hundred to thousands of populations (decision 035).
    max_exact: int = 1_000_000


CHOICE = ChoiceSettings()


def is_small(individuals: IndividualPosteriors) -> bool:
    """Whether there are few enough observations times draws for the exact likelihood."""
    names = individuals.structure.series
    num_values = sum(individuals.cohort[name].values.numel() for name in names)
    return num_values * individuals.num_draws <= CHOICE.max_exact


def differentiable_likelihood(individuals: IndividualPosteriors, scale: Tensor) -> Likelihood:
    r"""The exact likelihood if it is affordable and has a gradient, else the expanded one.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
    """
    # The draws follow by gradients that the expansion uses again.
    with caching(SolutionCache()):
        following = follow(individuals, scale)
        if is_small(individuals):
            exact = ExactLikelihood(individuals, following)
            if _has_gradient(exact):
                return exact
        return ExpandedLikelihood(individuals, scale, following=following)


def _has_gradient(likelihood: ExactLikelihood) -> bool:
    """Whether the gradient is finite at the population of the draws, and the model solves no
    dynamics, whose gradients take many times as long as their solution.
    """
    individuals = likelihood.individuals
    structure = individuals.structure
    vector = structure.unconstrain_population(individuals.population)
    with caching(SolutionCache()) as cache:
        structure.log_density(
            individuals.cohort, individuals.unconstrained[:1], individuals.population
        )
    if not cache.is_empty:
        return False

    def total(x: Tensor) -> Tensor:
        return likelihood(structure.constrain_population(x)).sum()

    return bool(value_and_gradient(total, vector)[1].isfinite().all())


def make_likelihood(individuals: IndividualPosteriors, scale: Tensor) -> Likelihood:
    r"""The exact likelihood if it is affordable and the model solves no dynamics, else the expanded
    one.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
    """
    if is_small(individuals) and not _solves_dynamics(individuals):
        return ExactLikelihood(individuals, follow(individuals, scale))
    with caching(SolutionCache()):
        return ExpandedLikelihood(individuals, scale)


def _solves_dynamics(individuals: IndividualPosteriors) -> bool:
    """Whether the model solves dynamics: hundreds of populations would take hours."""
    structure, draws = individuals.structure, individuals.unconstrained[:1]
    with caching(SolutionCache()) as cache:
        structure.log_density(individuals.cohort, draws, individuals.population)
    return cache.has_dynamics
