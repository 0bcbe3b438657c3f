r"""How far the conditional means of the individual parameters are drawn towards the population,
:math:`1 - \mathrm{sd}_i(\hat\eta_i) / \omega`.
"""

import math
from dataclasses import dataclass

import torch

from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors


@dataclass(frozen=True)
class ShrinkageSettings:
    r"""Numbers of draws from the population.

    Args:
        max_draws: Draws times individuals, all together. For many individuals there are fewer draws
            of each, whose errors average out.
        max_rows: Draws times individuals at a time: some hundred megabytes.
        min_per_individual: Fewest draws of each individual.
    """

    max_draws: int = 10_000_000
    max_rows: int = 1_000_000
    min_per_individual: int = 100


SHRINKAGE = ShrinkageSettings()


def eta_shrinkage(individuals: IndividualPosteriors, num_draws: int, seed: int) -> dict[str, float]:
    r"""Shrinkage by name of the individual parameter; NaN with one individual.

    Args:
        individuals: Draws of every individual.
        num_draws: Largest number of draws of each individual from the population.
        seed: Seed of these draws.
    """
    structure, cohort = individuals.structure, individuals.cohort
    most = max(SHRINKAGE.min_per_individual, SHRINKAGE.max_draws // len(cohort))
    num_draws, generator = min(num_draws, most), make_generator(seed)
    mean, parts = individuals.moments()[0], []
    for rows in torch.arange(len(cohort)).split(max(1, SHRINKAGE.max_rows // num_draws)):
        population = dict(individuals.population)
        prior = structure.draw_individuals(cohort[rows], population, num_draws, generator)
        parts.append((mean[rows] - prior.mean(0)) / prior.std(0))
    eta = torch.cat(parts)
    spread = 1 - eta.std(0) if len(cohort) > 1 else torch.full_like(eta[0], math.nan)
    return dict(zip(structure.latent_names, spread.tolist(), strict=True))
