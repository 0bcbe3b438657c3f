r"""Draws of the individuals that serve a neighbourhood of populations.

Draws made at one population lose their effective number as the population moves, most of all where
rich data tie an individual's parameters to parameters that all share. Draws that are to follow the
population over its whole posterior therefore come from mixtures fitted to draws at several
populations of it, together:

.. math:: q_i(u) \approx \frac1M \sum_m p(u \mid y_i, \Psi_m).
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ..sampling.adaptive_importance import MAX_COMPONENTS, fitted, shape_of
from ..sampling.individuals import IndividualPosteriors, make_sampler
from ..sampling.proposals import Refinement, Weighted
from .fit_result import PopulationFit

LEAST_DRAWS = 200  # at every population
MANY, MAX_DRAWS = 15_000, 3_000  # draws of all individuals, of each


def widened(
    fit: PopulationFit, vectors: Sequence[Tensor], generator: Generator
) -> IndividualPosteriors:
    r"""Fresh draws of every individual, for all of some populations.

    Args:
        fit: The fit; its draws lead on.
        vectors: The populations, unconstrained, shape ``(population,)`` each.
        generator: Source of randomness.

    Returns:
        At least as many draws as the fit has, weighted at its estimates.
    """
    known, cohort = fit.individuals, fit.individuals.cohort
    size = max(LEAST_DRAWS, known.num_draws // len(vectors))
    parts = [fit.search.draw(x, size, generator, known) for x in vectors]
    log_weights = [p.log_weights.log_softmax(0).nan_to_num(-torch.inf) for p in parts]
    draws = torch.cat([p.unconstrained for p in parts])
    pooled = Weighted(draws, torch.zeros(draws.shape[:2]), torch.cat(log_weights))
    everyone, rows = torch.ones(len(cohort), dtype=torch.bool), torch.arange(len(cohort))
    with torch.no_grad():
        mixture = fitted(pooled, MAX_COMPONENTS, generator)
        refinement = Refinement(everyone, mixture, shape_of(draws, generator))
        sampler = make_sampler(fit.guide, fit.structure, cohort, known.population)
        num = max(known.num_draws, min(MAX_DRAWS, MANY // len(cohort)))
        found = sampler.from_mixture(refinement, num, rows, generator)
    return IndividualPosteriors(
        fit.structure,
        cohort,
        known.population,
        found.draws,
        found.log_proposal,
        found.log_weights,
        ("student-t mixture",) * len(cohort),
        refinement,
    )
