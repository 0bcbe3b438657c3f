r"""The training distribution that follows from the prior of a model."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import TrainingError
from ..model import ModelStructure, Population
from ..model.individual_priors import individual_priors_at
from ..numerics.gaussians import Gaussians
from ..runtime.random_numbers import make_generator
from .training_distributions import (
    DEFAULTS,
    IndividualDistribution,
    PopulationRange,
    SharedDistribution,
    TrainingDistribution,
    robust_moments,
)


def default_training_distribution(
    structure: ModelStructure,
    cohort: Cohort,
    seed: int | Generator,
    *,
    inflation: float = DEFAULTS.inflation,
    num_draws: int = 1000,
) -> TrainingDistribution:
    r"""The distribution that :func:`~pyro_amortized.train` uses unless it is given another one.

    Each training individual has a population of its own, see
    :class:`~pyro_amortized.guide.training_distributions.PopulationRange`: its mean
    comes from the prior distribution of the means of the individuals with inflated standard
    deviations, its standard deviations reach from a fortieth to the whole of a large one of the
    prior. Values beyond three robust standard deviations count as three, so that a prior with heavy
    tails does not make the distribution arbitrarily wide. Shared parameters are drawn from their
    prior.

    A model without population parameters states the distribution of its individual parameters
    itself; this distribution is then used without change.

    Args:
        structure: The model.
        cohort: Data or design; individuals enter only where covariates move their parameters.
        seed: Seed or generator.
        inflation: Factor on the standard deviations.
        num_draws: Number of populations drawn from the prior.

    Raises:
        TrainingError: More than a tenth of the draws of the individual parameters are not finite.
    """
    generator = make_generator(seed)
    populations = structure.draw_populations(cohort, num_draws, generator)
    picked = torch.randperm(len(cohort), generator=generator)[: DEFAULTS.max_individuals]
    shared = torch.stack(
        [structure.unconstrain_population(p, structure.shared) for p in populations]
    )
    individual = _individual_distribution(
        structure, cohort[picked], populations, inflation, generator
    )
    return TrainingDistribution(individual, SharedDistribution(shared[shared.isfinite().all(-1)]))


def _individual_distribution(
    structure: ModelStructure,
    sample: Cohort,
    populations: Sequence[Population],
    inflation: float,
    generator: Generator,
) -> IndividualDistribution:
    """The training distribution of the individual parameters, from draws of the population."""
    if not structure.population:
        draws = structure.draw_individuals(sample, {}, len(populations), generator).flatten(0, 1)
        return IndividualDistribution(robust_moments(_finite(draws)), structure)
    vectors = torch.stack([structure.unconstrain_population(p) for p in populations])
    priors = individual_priors_at(structure, sample, vectors)
    draws = priors.draw(1, generator)[0].flatten(0, 1)
    loc, scale_tril = robust_moments(_finite(draws))
    is_known = draws.isfinite().all(-1)
    means = priors.loc.flatten(0, 1)[is_known]
    deviations = priors.standard_deviations.flatten(0, 1)[is_known]
    largest = inflation * deviations.quantile(DEFAULTS.scale_quantile, 0)
    mean_loc, mean_tril = robust_moments(means)
    mean_tril = inflation * mean_tril
    least = DEFAULTS.min_location_share * largest
    wider = (least / mean_tril.pow(2).sum(1).sqrt()).clamp(min=1.0)
    location = Gaussians(mean_loc, wider.unsqueeze(-1) * mean_tril)
    populations_of_training = PopulationRange(location, largest)
    return IndividualDistribution(
        Gaussians(loc, inflation * scale_tril), None, populations_of_training
    )


def _finite(draws: Tensor) -> Tensor:
    """The finite rows of draws ``(draw, latent)``.

    Raises:
        TrainingError: More than a tenth of them are not finite.
    """
    finite = draws.isfinite().all(-1)
    if float(finite.double().mean()) < DEFAULTS.min_finite:
        raise TrainingError(
            f"{int((~finite).sum())} of {len(draws)} draws of the individual parameters are not "
            "finite.",
            "a prior that gives finite individual parameters.",
            "narrow the priors of the population (for instance HalfNormal in place of HalfCauchy).",
        )
    return draws[finite]
