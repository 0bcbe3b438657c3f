r"""Populations with new units of a level above the individuals: sites and plots that nobody saw.

A fit with a level knows the distribution of the effects of the units. A draw of the population is a
draw of the estimates and, given it, of the effects of as many units as the data have:

.. math:: \theta \sim \mathcal{N}(\hat\theta, \hat\Sigma), \qquad u_s \sim p(u \mid \theta) .
"""

import torch
from torch import Generator

from ..errors import FitError
from ..population.known_population import KnownPopulation
from ..population.levels.level_result import LevelFit
from ..population.posterior.population_draws import normal_vectors
from .population_source import Source
from .simulated_individuals import Uncertainty


def source_of_new_units(
    fit: LevelFit, num_draws: int, uncertainty: Uncertainty | None, generator: Generator
) -> Source:
    r"""The population of a fit with a level, all of whose units are new.

    Args:
        fit: The fit.
        num_draws: Number of draws of the population with its units.
        uncertainty: What is to vary: only that of population and individuals has new units.
        generator: Source of randomness.

    Raises:
        FitError: Another uncertainty.
    """
    if uncertainty not in (None, "population and individuals"):
        raise FitError(
            f"uncertainty={uncertainty!r} for a fit with the level {fit.level.plate!r}.",
            '"population and individuals": units that were not seen have effects that vary.',
            "leave out `uncertainty=`, or pass `fit.given_effects()` for the units that were seen.",
        )
    structure = fit.structure
    vectors = normal_vectors(fit.vector, fit.covariance, num_draws, generator)
    populations = [
        fit.level.new_effects(structure, fit.cohort, structure.constrain_population(x), generator)
        for x in vectors
    ]
    draws = torch.stack([structure.unconstrain_population(p) for p in populations])
    names = (tuple(fit.cohort.series), tuple(fit.cohort.covariates))
    known = KnownPopulation(structure.model, fit.population, {}, fit.cohort, *names)
    return Source(known.model, fit.population, *names, fit.cohort, known=known, draws=draws)
