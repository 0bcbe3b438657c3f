"""Draws of every individual from its posterior, given a population, with or without a guide."""

from dataclasses import replace
from typing import Any

import torch
from torch import Generator

from ..cohort import Cohort
from ..errors import GuideError
from ..guide import AmortizedGuide
from ..guide.learned_likelihood import structure_to_fit
from ..model import Estimator, Model, ModelStructure, Population
from ..runtime.arguments import check_count
from ..runtime.random_numbers import make_generator
from ..runtime.solver_context import failures_in_one_line
from ..runtime.threads import threads_for
from .adaptive_importance import sample_targets
from .counted_density import CountedDensity
from .individual_sampler import make_sampler
from .individuals import MIN_DRAWS, IndividualPosteriors, individual_posteriors
from .minor_modes import with_minor_modes
from .posterior_warnings import warn_unreliable, warn_unusual
from .refinement_settings import FULL_EFFORT, REFINEMENT, Effort
from .unreliable_individuals import improve_unreliable
from .weighted_draws import Refinement


def sample_individuals(
    model: Model,
    cohort: Cohort,
    population: Population,
    *,
    guide: Any = None,
    num_draws: int = 1000,
    seed: int | Generator = 0,
    refine: bool = True,
    before: IndividualPosteriors | None = None,
    estimator: Estimator | None = None,
    max_chains: int = FULL_EFFORT.max_chains,
) -> IndividualPosteriors:
    r"""Corrected posterior draws of every individual, given the population.

    Args:
        model: The model: that of the guide, or another one with the same individual sites.
        cohort: The data.
        population: Values of all population sites, for instance ``fit.estimates``.
        guide: An :class:`~pyro_amortized.AmortizedGuide`, or any Pyro guide that samples the
            individual sites of the model when it is called with a cohort. Default: the first draws
            come from the population, and every individual is refined.
        num_draws: Draws per individual.
        seed: Seed or generator.
        refine: Refine individuals whose weights are poor.
        before: Draws of the same individuals at another population. Their mixtures are tried
            first; the draws themselves are not used.
        estimator: ``"corrected"`` by the density of the model, or ``"likelihood-free"``: by the
            density that the guide has learned (see
            :mod:`pyro_amortized.guide.learned_likelihood`). Default: corrected if the model has a
            density. ``result.structure.estimator`` says which.
        max_chains: Largest number of individuals that get a chain of NUTS. Those with the fewest
            effective draws come first, among the individuals that still have fewer than 20
            effective draws or a Pareto k above 0.7. The draws come from a mixture fitted to the
            chain.

    Returns:
        Weighted draws; ``print(result.summary())`` shows for each individual what its draws come
        from, what they cost and how good they are. One warning names the individuals whose weights
        are unreliable.

    Raises:
        GuideError: The guide does not sample all individual sites of the model.
        ModelError: A population value is missing or outside its support, or the model has no
            density and there is no guide.
    """
    trained = guide if guide is None or isinstance(guide, AmortizedGuide) else None
    structure = structure_to_fit(model, cohort, trained, estimator)
    return sample_with_structure(
        structure,
        guide,
        cohort,
        population,
        num_draws=num_draws,
        seed=seed,
        effort=Effort(REFINEMENT if refine else None, max_chains),
        known=None if before is None else before.refinement,
    )


def sample_with_structure(
    structure: ModelStructure,
    guide: Any,
    cohort: Cohort,
    population: Population,
    *,
    num_draws: int,
    seed: int | Generator = 0,
    effort: Effort = FULL_EFFORT,
    known: Refinement | None = None,
) -> IndividualPosteriors:
    """:func:`sample_individuals` for a model that was read before; ``known`` are mixtures of the
    individuals that are tried first.
    """
    check_count("num_draws", num_draws, least=MIN_DRAWS, error=GuideError)
    generator = make_generator(seed)
    population = {name: x.detach() for name, x in structure.check_population(population).items()}
    cohort = cohort.to(dtype=torch.float64)
    if isinstance(guide, AmortizedGuide):
        warn_unusual(guide.patterns.unusual(cohort))
    threads = threads_for(num_draws * cohort.num_values)
    with torch.no_grad(), threads, failures_in_one_line("draws of the individuals"):
        refine = effort.settings is not None
        sampler = make_sampler(guide, structure, cohort, population)
        density = CountedDensity(sampler.target, len(cohort))
        sampler = replace(sampler, target=density, settings=effort.settings or REFINEMENT)
        sampled = sample_targets(sampler, num_draws, len(cohort), generator, refine, known)
        if refine and effort.search_modes:
            recorded = cohort.num_recorded(structure.series)
            sampled = with_minor_modes(sampler, sampled, generator, recorded)
        if refine and effort.max_chains:
            sampled = improve_unreliable(sampler, sampled, generator, effort.max_chains)
    parts = (sampled, density.evaluations, "population" if guide is None else "guide")
    result = individual_posteriors(structure, cohort, population, *parts)
    warn_unreliable(cohort.ids, result.estimate, num_draws, result.method, refine)
    return result
