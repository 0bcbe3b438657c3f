r"""Draws of the individuals that can be used over the posterior of the population.

Draws that were made at one population lose effective draws as the population moves. The loss is
largest where many observations make the parameters of an individual depend strongly on the shared
parameters. Draws for the whole posterior of the population therefore come from mixtures that are
fitted to draws at several populations :math:`\Psi_m` together (decision 042):

.. math:: q_i(u) \approx \frac1M \sum_m p(u \mid y_i, \Psi_m).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ...sampling.counted_density import CountedDensity
from ...sampling.individual_sampler import make_sampler
from ...sampling.individuals import IndividualPosteriors, individual_posteriors
from ...sampling.refinement_settings import REFINEMENT
from ...sampling.sampling_stage import Stage
from ...sampling.weighted_draws import Refinement, Sampled, Weighted
from ...sampling.weighted_fits import mixture_of_equal, mixture_of_weighted
from ..results.fit_result import PopulationFit


@dataclass(frozen=True)
class PooledSettings:
    r"""Numbers of draws.

    Args:
        min_draws: Draws per individual at each of the populations, at least.
        max_total_draws: Most new draws of all individuals together.
        max_draws: Most new draws of each individual.
    """

    min_draws: int = 200
    max_total_draws: int = 15_000
    max_draws: int = 3_000


POOLED = PooledSettings()


def pooled_individuals(
    fit: PopulationFit, vectors: Sequence[Tensor], generator: Generator
) -> IndividualPosteriors:
    r"""New draws of every individual, from mixtures for several populations together.

    Args:
        fit: The fit; the mixtures of its draws are tried first.
        vectors: The populations in unconstrained coordinates, shape ``(population,)`` each.
        generator: Source of randomness.

    Returns:
        At least as many draws as the fit has, weighted at the estimates of the fit.
    """
    known, cohort = fit.individuals, fit.individuals.cohort
    size = max(POOLED.min_draws, known.num_draws // len(vectors))
    parts = [fit.search.draw(x, size, generator) for x in vectors]
    log_weights = [p.log_weights.log_softmax(0).nan_to_num(-torch.inf) for p in parts]
    draws = torch.cat([p.unconstrained for p in parts])
    pooled = Weighted(draws, torch.zeros(draws.shape[:2]), torch.cat(log_weights))
    rows = torch.arange(len(cohort))
    stage = torch.full_like(rows, Stage.MIXTURE)
    with torch.no_grad():
        mixture = mixture_of_weighted(pooled, REFINEMENT.max_components, generator)
        guide = mixture_of_equal(draws, REFINEMENT.num_guide_components, generator)
        refinement = Refinement(stage, mixture, guide, known.refinement.num_modes)
        sampler = make_sampler(fit.guide, fit.structure, cohort, known.population)
        density = CountedDensity(sampler.target, len(cohort))
        sampler = replace(sampler, target=density)
        enough = min(POOLED.max_draws, POOLED.max_total_draws // len(cohort))
        num_draws = max(known.num_draws, enough)
        weighted = sampler.from_mixture(refinement, num_draws, rows, generator)
    sampled = Sampled(weighted, refinement)
    return individual_posteriors(
        fit.structure, cohort, known.population, sampled, density.evaluations
    )
