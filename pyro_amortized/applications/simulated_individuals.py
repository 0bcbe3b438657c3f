r"""Parameters of the individuals of a simulation, and the population of each draw.

With uncertainty of the population and the individuals, every draw has a population of its own, and
new individuals of it; seen individuals have, for every population, one of their weighted posterior
draws, chosen by its weight under this population. With uncertainty of the individuals alone the
population is that of the estimates. Without uncertainty there is the typical individual, or the
posterior mean of each seen one.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import SettingError
from ..model import ModelStructure, Population
from ..model.individual_priors import individual_priors
from ..population.likelihood.exact_likelihood import ExactLikelihood
from ..runtime.random_numbers import fork_seed
from ..sampling.importance_weights import normalized_weights, resample
from ..sampling.individual_draws import sample_individuals
from ..sampling.individuals import IndividualPosteriors
from ..sampling.posterior_centers import posterior_centers
from .population_source import Source
from .recipients import Covariates
from .uncertain_draws import following_of

Uncertainty = Literal["population and individuals", "individuals", "none"]
UNCERTAINTIES: tuple[Uncertainty, ...] = ("population and individuals", "individuals", "none")
MIN_POSTERIOR_DRAWS = 500  # weighted draws of a seen individual, from which others are chosen


@dataclass(frozen=True, eq=False)
class Individuals:
    r"""Parameters of the individuals of a simulation.

    Args:
        structure: The model.
        unconstrained: Individual parameters, shape ``(draw, individual, latent)``.
        population: Values of the population sites, or one population per draw, unconstrained, shape
            ``(draw, population)``.
    """

    structure: ModelStructure
    unconstrained: Tensor
    population: Population | Tensor


def check_uncertainty(uncertainty: str | None) -> None:
    """Raise unless the uncertainty is a known one, or None."""
    if uncertainty is not None and uncertainty not in UNCERTAINTIES:
        raise SettingError(
            f"`uncertainty` is {uncertainty!r}.",
            f"one of {list(UNCERTAINTIES)}.",
            "correct `uncertainty=`.",
        )


def check_no_new(num_individuals: int | None, covariates: Covariates | None, what: str) -> None:
    """Raise if new individuals are described beside something that has individuals."""
    given = {"num_individuals": num_individuals, "covariates": covariates}
    for name, value in given.items():
        if value is not None:
            raise SettingError(
                f"`{name}` together with {what}.",
                f"one of them: {what} has a number of individuals with covariates of their own.",
                f"leave out `{name}=`.",
            )


def check_no_start(start: float | None) -> None:
    """Raise if new individuals are given a begin of the regimen."""
    if start is not None:
        raise SettingError(
            f"`start` is {start!r}, and the individuals are new ones.",
            "individuals that were seen, whose clock goes on.",
            "pass them as `conditional_on=`, or use `nlme.regimen(..., start=)`.",
        )


def new_individuals(
    source: Source,
    design: Cohort,
    uncertainty: Uncertainty | None,
    num_draws: int,
    generator: Generator,
) -> tuple[Individuals, Uncertainty]:
    r"""New individuals with the covariates of a design, and the uncertainty that was used.

    Args:
        source: The population.
        design: The individuals, with any doses and times.
        uncertainty: Default: of the population and the individuals where the former is known.
        num_draws: Number of populations.
        generator: Source of randomness.
    """
    structure = source.structure(design)
    used = uncertainty or source.what_varies(structure)
    estimates = source.estimates
    if used == "none":
        typical = individual_priors(structure, design, estimates).loc.unsqueeze(0)
        return Individuals(structure, typical, estimates), used
    if used == "individuals":
        draws = structure.draw_individuals(design, estimates, 1, generator)
        return Individuals(structure, draws, estimates), used
    vectors = source.vectors(structure, num_draws, generator)
    populations = [structure.constrain_population(vector) for vector in vectors]
    drawn = [structure.draw_individuals(design, p, 1, generator) for p in populations]
    return Individuals(structure, torch.cat(drawn), vectors), used


def seen_individuals(
    source: Source,
    cohort: Cohort,
    uncertainty: Uncertainty | None,
    num_draws: int,
    generator: Generator,
) -> tuple[Individuals, Uncertainty]:
    r"""Posterior draws of individuals that were seen, and the uncertainty that was used. Arguments
    as for :func:`new_individuals`, with the data of the individuals.
    """
    posterior = sample_individuals(
        source.model,
        cohort,
        source.estimates,
        guide=source.guide_for(cohort),
        num_draws=max(num_draws, MIN_POSTERIOR_DRAWS),
        seed=fork_seed(generator),
        estimator=source.estimator,
    )
    structure = posterior.structure
    used = uncertainty or source.what_varies(structure)
    if used == "none":
        mean = posterior_centers(posterior).unsqueeze(0)
        return Individuals(structure, mean, source.estimates), used
    if used == "individuals":
        draws = posterior.resampled(num_draws, generator)
        return Individuals(structure, draws, source.estimates), used
    vectors = source.vectors(structure, num_draws, generator)
    draws = _under_each(source, posterior, vectors, generator)
    return Individuals(structure, draws, vectors), used


def _under_each(
    source: Source, posterior: IndividualPosteriors, vectors: Tensor, generator: Generator
) -> Tensor:
    """One draw of every individual under each population, shape ``(draw, individual, latent)``."""
    structure, following = posterior.structure, following_of(source, posterior, vectors)
    likelihood = ExactLikelihood(posterior, following)
    rows, result = torch.arange(len(posterior.cohort)), []
    for vector in vectors:
        with torch.no_grad():
            log_weights = likelihood.log_weights(structure.constrain_population(vector))
        index = resample(normalized_weights(log_weights), 1, generator)[0]
        chosen = posterior.unconstrained[index, rows].unsqueeze(0)
        result.append(following.moved(chosen, vector)[0])
    return torch.cat(result)
