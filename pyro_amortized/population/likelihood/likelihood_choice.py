r"""The choice between the exact and the expanded marginal likelihood.

The exact one evaluates all observations at all draws for every population. The expanded one
evaluates them once, and is accurate near the population that it is expanded about. For large
cohorts a quadratic one takes a quarter of these evaluations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure, Population
from ...numerics.cholesky import factored
from ...numerics.maximization import value_and_gradient
from ...runtime.random_numbers import make_generator
from ...runtime.solver_context import SolutionCache, caching
from ...sampling.individuals import IndividualPosteriors
from ..following.density_gradients import solves_dynamics
from ..following.fitted_following import follow, followed
from .exact_likelihood import ExactLikelihood
from .expanded_likelihood import ExpandedLikelihood, pays_by_torch
from .expansion_settings import num_evaluations
from .large_cohorts.individual_blocks import summary_by_blocks
from .large_cohorts.summarized_draws import RoundDraws, SummarizedDraws
from .likelihood_interface import Gains, Likelihood, WeightedLikelihood, gains_on_draws
from .quadratic_likelihood import QuadraticLikelihood


@dataclass(frozen=True)
class LikelihoodChoiceSettings:
    """Number of observations times draws beyond which the observations are expanded."""

    # The exact likelihood is evaluated at some hundred to thousands of populations (decision 035).
    max_exact: int = 1_000_000
    # Values times draws times evaluations of the observations beyond which the likelihood is
    # quadratic; half a minute. The curvature for the standard errors is then that of as many
    # individuals, chosen at random, as this allows, and at least the second number: with 300 of
    # 1,000 the standard errors of a linear model vary by 0.3 to 2.8 %. The outer products of the
    # scores of 300 individuals gave some that were up to 20 % off.
    max_evaluated: int = 500_000_000
    min_curved: int = 300
    # With the largest number of them the standard errors vary by less than one per cent.
    max_curved: int = 1_000
    # Individuals from which on the likelihood is quadratic, whatever it costs to expand it. The
    # outer products of so many scores have an error of some per cent, and the memory of the
    # expansion grows with individuals times draws: 5 GB for 10,000 individuals with 200 draws.
    min_individuals: int = 2_000


CHOICE = LikelihoodChoiceSettings()


def is_small(individuals: IndividualPosteriors) -> bool:
    """Whether there are few enough observations times draws for the exact likelihood."""
    names = individuals.structure.series
    num_values = sum(individuals.cohort[name].values.numel() for name in names)
    return num_values * individuals.num_draws <= CHOICE.max_exact


def most_draws(structure: ModelStructure, cohort: Cohort, max_evaluated: int | None = None) -> int:
    """Largest number of draws per individual that the observations are expanded about, with so
    many evaluated values; default: as many as the likelihood is expanded for.
    """
    most = CHOICE.max_evaluated if max_evaluated is None else max_evaluated
    evaluations = num_evaluations(len(structure.latent_names), structure.num_shared)
    return most // (cohort.num_values * evaluations)


def is_large(structure: ModelStructure, cohort: Cohort) -> bool:
    """Whether the likelihood of a cohort is the quadratic one on any number of draws."""
    return structure.estimator == "corrected" and len(cohort) >= CHOICE.min_individuals


def is_quadratic(structure: ModelStructure, cohort: Cohort, num_draws: int) -> bool:
    """Whether the likelihood on so many draws of each individual is the quadratic one."""
    is_corrected = structure.estimator == "corrected"
    is_costly = num_draws > most_draws(structure, cohort)
    return is_large(structure, cohort) or (is_corrected and is_costly)


def differentiable_likelihood(individuals: RoundDraws, scale: Tensor) -> Likelihood:
    r"""The exact likelihood if it is affordable and has a gradient, else the expanded one, or for
    a large cohort the quadratic one.

    Args:
        individuals: The draws, or what is kept of those of a large cohort.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
    """
    if isinstance(individuals, SummarizedDraws):
        return QuadraticLikelihood(individuals, scale)
    if is_quadratic(individuals.structure, individuals.cohort, individuals.num_draws):
        return QuadraticLikelihood(summary_by_blocks(individuals, scale), scale)
    # The draws follow by differences that the expansion uses again.
    with caching(SolutionCache()):
        by_torch = pays_by_torch(individuals.structure)
        following, differences = followed(individuals, scale, by_torch=by_torch)
        if is_small(individuals):
            exact = ExactLikelihood(individuals, following)
            if _has_gradient(exact):
                return exact
        return ExpandedLikelihood(individuals, scale, following=following, differences=differences)


def likelihood_with_curvature(
    likelihood: Likelihood, individuals: IndividualPosteriors, scale: Tensor, seed: int
) -> tuple[Likelihood, Tensor]:
    """A likelihood whose sum over the individuals, with the weights ``(individual,)``, has the
    curvature of the marginal likelihood: for a quadratic one the expanded one of some individuals.
    """
    if not isinstance(likelihood, QuadraticLikelihood):
        return likelihood, torch.ones(()).double()
    num = len(individuals.cohort)
    share = most_draws(individuals.structure, individuals.cohort) / individuals.num_draws
    num_curved = min(num, CHOICE.max_curved, max(CHOICE.min_curved, int(share * num)))
    rows = torch.randperm(num, generator=make_generator(seed))[:num_curved]
    weights = calibrated_weights(likelihood.following.scores, rows)
    return ExpandedLikelihood(individuals.take(rows), scale), weights


def calibrated_weights(scores: Tensor, rows: Tensor) -> Tensor:
    r"""Weights of some individuals with which their number, their scores and the squares of these
    have the totals of all.

    The second derivatives of an individual go with its scores: for a standard deviation both are
    linear in the square of its effect. The weighted sum of the second derivatives is the regression
    estimate of their total.

    Args:
        scores: Of all individuals, shape ``(individual, population)``.
        rows: The individuals that were chosen at random.

    Returns:
        Shape ``(row,)``.

    References:
        Deville, Saerndal (1992), Calibration Estimators in Survey Sampling, Journal of the American
        Statistical Association 87.
    """
    unit = scores.square().mean(0).sqrt().clamp(min=1e-300)
    known = torch.cat([scores.new_ones(len(scores), 1), scores / unit, (scores / unit) ** 2], 1)
    design = len(scores) / len(rows) * known[rows]
    missing = known.sum(0) - design.sum(0)
    products = factored(known[rows].T @ design)
    correction = torch.cholesky_solve(missing.unsqueeze(1), products)[:, 0]
    return (len(scores) / len(rows)) + design @ correction


def gains_from(likelihood: Likelihood, start: Population) -> Callable[[Population], Gains]:
    """Changes of a likelihood from the population of its draws to others."""
    if isinstance(likelihood, QuadraticLikelihood):
        return likelihood.gains
    return gains_on_draws(cast(WeightedLikelihood, likelihood), start)


def gains_of_one(likelihood: Likelihood, start: Population) -> Callable[[Population], Gains]:
    """The same where only one parameter changes: the draws flow with it."""
    if isinstance(likelihood, ExactLikelihood | ExpandedLikelihood):
        likelihood = likelihood.along_flow()
    return gains_from(likelihood, start)


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


def make_likelihood(individuals: IndividualPosteriors, scale: Tensor) -> WeightedLikelihood:
    r"""The exact likelihood if it is affordable and the model solves no dynamics, else the expanded
    one.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
    """
    parts = (individuals.cohort, individuals.unconstrained[:1], individuals.population)
    if is_small(individuals) and not solves_dynamics(individuals.structure, *parts):
        return ExactLikelihood(individuals, follow(individuals, scale))
    with caching(SolutionCache()):
        return ExpandedLikelihood(individuals, scale)
