r"""The individuals of a fit with a level, given the effects of their units."""

import torch

from ...runtime.random_numbers import make_generator
from ...sampling.individual_draws import sample_with_structure
from ..likelihood.likelihood_estimate import summarize_weights
from ..results.fit_result import PopulationFit
from ..search.maximum_search import Criterion, Search
from .level_result import LevelFit


def fit_given_effects(fit: LevelFit, num_draws: int, seed: int) -> PopulationFit:
    r"""The individuals at the estimates and the effects of their units, all of them fixed: the
    curvature of the likelihood of the individuals alone would give other standard errors.

    Args:
        fit: The fit with a level.
        num_draws: Draws of each individual.
        seed: Seed of the draws.
    """
    generator, structure = make_generator(seed), fit.structure
    individuals = sample_with_structure(
        structure, None, fit.cohort, fit.population, num_draws=num_draws, seed=generator
    )
    unknown = torch.full_like(fit.vector, torch.nan)
    criterion: Criterion = "maximum likelihood"
    return PopulationFit(
        model=structure.model,
        guide=None,
        cohort=fit.cohort,
        structure=structure,
        criterion=criterion,
        vector=fit.vector,
        covariance=torch.full_like(fit.covariance, torch.nan),
        monte_carlo_errors=unknown,
        standard_error_errors=unknown,
        individuals=individuals,
        marginal=summarize_weights(individuals),
        converged=fit.converged,
        message=f"given the effects of {fit.level.plate!r}; {fit.message}",
        num_rounds=fit.num_rounds,
        seconds=fit.seconds,
        search=Search.begin(structure, None, fit.cohort, criterion, generator),
        fixed=tuple(structure.population),
    )
