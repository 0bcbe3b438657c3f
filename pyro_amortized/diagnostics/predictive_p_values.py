r"""Posterior predictive p-values: can the model produce the data of an individual?

With posterior draws :math:`\phi_k \sim p(\phi \mid y)` and replicates
:math:`y_k \sim p(y \mid \phi_k)` of the data of an individual, the p-value compares log densities,

.. math:: p = P\big(\log p(y_k \mid \phi_k) < \log p(y \mid \phi_k)\big) .

References:
    Gelman, Meng, Stern (1996), Posterior predictive assessment of model fitness via realized
    discrepancies.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..sampling.individuals import IndividualPosteriors


@dataclass(frozen=True)
class PredictiveSettings:
    r"""Work and memory of the p-values.

    Args:
        num_draws: Posterior draws, each with one replicate: the smallest p-value is one in 1,001.
        max_values: Replicated values in one call of the model, which limits memory.
    """

    num_draws: int = 1000
    max_values: int = 400_000


DEFAULTS = PredictiveSettings()


def log_density_p_values(
    individuals: IndividualPosteriors, generator: Generator
) -> tuple[Tensor, Tensor]:
    r"""P-value of the log density of each individual's data among those of replicates.

    Args:
        individuals: The posteriors.
        generator: Source of random numbers.

    Returns:
        P-values, and by how many standard deviations of the replicates the log density of the data
        lies below their mean; both of shape ``(individual,)``.
    """
    structure, num_draws = individuals.structure, DEFAULTS.num_draws
    cohort, population = individuals.cohort, individuals.population
    draws = individuals.resampled(num_draws, generator)
    values_per_draw = sum(cohort[n].values.numel() for n in structure.series)
    of_data, of_replicates = [], []
    with torch.no_grad():
        for part in draws.split(max(1, DEFAULTS.max_values // values_per_draw)):
            of_data.append(structure.log_density(cohort, part, population).observation)
            replicates = structure.predict_draws(cohort, part, population, generator)
            simulated = _replicates(cohort.repeat(len(part)), replicates)
            rows = part.reshape(1, -1, part.shape[-1])
            density = structure.log_density(simulated, rows, population)
            of_replicates.append(density.observation.reshape(len(part), -1))
    replicated, observed = torch.cat(of_replicates), torch.cat(of_data)
    p_values = ((replicated <= observed).double().sum(0) + 1) / (num_draws + 1)
    difference = replicated - observed
    return p_values, difference.mean(0) / difference.std(0).clamp(min=1e-12)


def _replicates(repeated_cohort: Cohort, values: dict[str, Tensor]) -> Cohort:
    """A cohort of replicates with unique labels. The recorded value takes the place of a replicate
    that is not finite.
    """
    finite = {}
    for name, draws in values.items():
        x = draws.flatten(0, 1)
        finite[name] = torch.where(x.isfinite(), x, repeated_cohort[name].values)
    replicates = repeated_cohort.with_values(finite)
    return replace(replicates, ids=tuple(str(i) for i in range(len(replicates))))
