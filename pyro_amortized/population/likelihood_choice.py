r"""The choice between the exact and the expanded marginal likelihood.

The exact one follows the shared parameters everywhere, and evaluates all observations at all draws
for every population. The expanded one evaluates them once per shared parameter, and is accurate
near the population that the draws were made at. Without shared parameters both are equal.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from ..numerics.maximization import value_and_gradient
from ..sampling.individuals import IndividualPosteriors
from .exact_likelihood import ExactLikelihood
from .expanded_likelihood import ExpandedLikelihood

Likelihood = ExactLikelihood | ExpandedLikelihood


@dataclass(frozen=True)
class ChoiceSettings:
    """Numbers of observations times draws beyond which the observations are expanded."""

    # A fit evaluates the exact likelihood some hundred times (decision 035).
    max_exact: int = 1_000_000
    # The same for the search of starting values, which need less accuracy.
    max_exact_rough: int = 200_000


CHOICE = ChoiceSettings()


def is_small(individuals: IndividualPosteriors, rough: bool = False) -> bool:
    """Whether there are few enough observations times draws for the exact likelihood."""
    names = individuals.structure.series
    num_values = sum(individuals.cohort[name].values.numel() for name in names)
    limit = CHOICE.max_exact_rough if rough else CHOICE.max_exact
    return num_values * individuals.num_draws <= limit


def make_likelihood(
    individuals: IndividualPosteriors, scale: Tensor, rough: bool = False
) -> Likelihood:
    r"""The exact likelihood if it is affordable and has a gradient, else the expanded one.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
        rough: Whether less accuracy is enough.
    """
    if is_small(individuals, rough) and individuals.structure.shared:
        impossible = individuals.log_weights == -math.inf
        for excluded in (None, impossible) if bool(impossible.any()) else (None,):
            exact = ExactLikelihood(individuals, excluded)
            if _has_gradient(exact):
                return exact
    return ExpandedLikelihood(individuals, scale)


def _has_gradient(likelihood: ExactLikelihood) -> bool:
    """Whether the gradient at the population of the draws is finite."""
    individuals = likelihood.individuals
    structure = individuals.structure
    vector = structure.unconstrain_population(individuals.population)

    def total(x: Tensor) -> Tensor:
        return likelihood(structure.constrain_population(x)).sum()

    return bool(value_and_gradient(total, vector)[1].isfinite().all())
