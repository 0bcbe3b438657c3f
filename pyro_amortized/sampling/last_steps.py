r"""The full effort for a few individuals of many, whose draws were made in blocks.

The search for missed modes, the second refinement and the chains of NUTS are limited for a whole
cohort, not for each of its blocks. The individuals that they are for are therefore picked from all
of them, and only their draws are copied.
"""

from dataclasses import replace

import torch
from torch import Generator

from ..guide import AmortizedGuide
from .counted_density import CountedDensity
from .individual_sampler import make_sampler
from .individuals import IndividualPosteriors, individual_posteriors
from .minor_modes import searched_rows, with_minor_modes
from .posterior_warnings import warn_unreliable, warn_unusual
from .refinement_settings import FULL_EFFORT, REFINEMENT
from .unreliable_individuals import improve_unreliable, unreliable_rows


def with_last_steps(
    individuals: IndividualPosteriors, guide: AmortizedGuide | None, generator: Generator
) -> IndividualPosteriors:
    r"""Draws in which the individuals with the lowest likelihood and those with poor weights have
    had the full effort. One warning names those that stay poor.

    Args:
        individuals: The draws of all individuals.
        guide: The guide, or None.
        generator: Source of randomness.
    """
    cohort, structure = individuals.cohort, individuals.structure
    if guide is not None:
        warn_unusual(guide.patterns.unusual(cohort))
    recorded = cohort.num_recorded(structure.series)
    sampled = individuals.sampled
    poor = unreliable_rows(sampled.weighted)
    poor = poor[: REFINEMENT.max_rows // individuals.num_draws + 1]
    first = searched_rows(sampled, recorded)
    rows = torch.cat([first, searched_rows(sampled, recorded, first), poor]).unique()
    if len(rows):
        part = individuals.take(rows)
        with torch.no_grad():
            sampler = make_sampler(guide, structure, part.cohort, part.population)
            density = CountedDensity(sampler.target, len(rows))
            sampler = replace(sampler, target=density)
            better = with_minor_modes(sampler, part.sampled, generator, recorded[rows])
            better = improve_unreliable(sampler, better, generator, FULL_EFFORT.max_chains)
        individuals = individual_posteriors(
            structure,
            cohort,
            individuals.population,
            sampled.replaced(rows, better),
            individuals.evaluations.index_add(0, rows, density.evaluations),
            "population" if guide is None else "guide",
        )
    parts = (individuals.estimate, individuals.num_draws, individuals.method)
    warn_unreliable(cohort.ids, *parts, True)
    return individuals
