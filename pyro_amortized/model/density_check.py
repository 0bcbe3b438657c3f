r"""A look at the density of a model near its prior, before anything is computed with it.

A density that is NaN or minus infinity for an individual, whatever its parameters, has a reason: a
value outside the support of its distribution (0 under a log-normal error), a logarithm or a root of
a negative number, a latent site whose distribution is a point. The individuals and the values are
named here; later the reason could not be seen any more.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import constraints

from ..cohort import Cohort
from ..errors import ModelError
from ..runtime.isolation import seeded
from ..runtime.random_numbers import make_generator
from ..runtime.short_lists import first_few
from ..runtime.user_warnings import warn_user
from .observation_density import IndividualLogDensity
from .outcome_kinds import innermost, outcome_kind
from .pointwise_densities import each_value, value_log_probs
from .program_run import Assign, run_program
from .sites import individual_rows
from .structure import ModelStructure


@dataclass(frozen=True)
class DensityCheckSettings:
    r"""Draws of the check.

    Args:
        num_populations: Populations from the prior; the density is computed at as many draws of
            each individual under each of them.
        num_further: Populations for the individuals that have no finite density at any of these: a
            density that is finite somewhere near the prior is no mistake.
        num_draws: Draws of each individual under each population.
        perturbation: Standard deviation by which draws are moved, in unconstrained coordinates: a
            distribution that is a point has no density beside its value.
        most_nan: Share of draws above which a density that is NaN is a mistake: NaN is the value of
            no parameters, while minus infinity is that of impossible ones.
        some_nan: Share above which the user is warned. Draws without a density have no weight.
        max_named: Individuals that are named.
    """

    num_populations: int = 3
    num_further: int = 30
    num_draws: int = 2
    perturbation: float = 0.1
    most_nan: float = 0.9
    some_nan: float = 0.25
    max_named: int = 5


DEFAULTS = DensityCheckSettings()


def check_density_near_prior(structure: ModelStructure, cohort: Cohort) -> None:
    r"""Raise if the density of some individual is not finite near the prior.

    Args:
        structure: The structure of the model.
        cohort: The data; not a design, whose values are placeholders.

    Raises:
        ModelError: A recorded value is outside the support of its distribution, or the density of
            an individual is not finite. The message names individuals and values. A density that is
            NaN at a part of the draws is a warning.
    """
    if not structure.has_density or structure.learned_density is not None:
        return
    cohort, generator = cohort.to(dtype=torch.float64), make_generator(0)
    with torch.no_grad(), seeded(0):
        _check_supports(structure, cohort, generator)
        rows = torch.arange(len(cohort))
        for num in (DEFAULTS.num_populations, DEFAULTS.num_further):
            density = _near_prior(structure, cohort[rows], num, generator)
            share = density.total.isnan().double().mean(0)
            without = (share > DEFAULTS.most_nan) | ~density.total.isfinite().any(0)
            suspect = without | (share > DEFAULTS.some_nan)
            if not bool(suspect.any()):
                return
            rows, without = rows[suspect], without[suspect]
            density = IndividualLogDensity(*(x[:, suspect] for x in density))
        if bool(without.any()):
            density = IndividualLogDensity(*(x[:, without] for x in density))
            raise _without_density(structure, cohort[rows[without]], density, generator)
        _warn(structure, cohort[rows], density, generator)


def _near_prior(
    structure: ModelStructure, cohort: Cohort, num: int, generator: Generator
) -> IndividualLogDensity:
    """Densities at moved draws of the individuals, shape ``(draw, individual)`` each."""
    densities = []
    for population in structure.draw_populations(cohort, num, generator):
        draws = structure.draw_individuals(cohort, population, DEFAULTS.num_draws, generator)
        noise = torch.randn(draws.shape, dtype=draws.dtype, generator=generator)
        moved = draws + DEFAULTS.perturbation * noise
        densities.append(structure.log_density(cohort, moved, population))
    return IndividualLogDensity.joined(densities)


def _without_density(
    structure: ModelStructure, cohort: Cohort, density: IndividualLogDensity, generator: Generator
) -> ModelError:
    """The error about individuals that have hardly any draw with a density."""
    total = density.total
    kind = "NaN" if bool(total.isnan().any()) else "minus infinity"
    finite = int(total.isfinite().all(1).sum())
    return ModelError(
        f"The density of {_named(cohort.ids)} is {kind} at {len(total) - finite} of {len(total)} "
        f"draws near the prior{_where(structure, cohort, density, generator)}.",
        "a density that is finite for parameters near the prior.",
        "look for logarithms, roots and divisions whose argument can be zero or negative, and for "
        "priors far from the data; latent sites need a density (not `Delta`).",
    )


def _warn(
    structure: ModelStructure, cohort: Cohort, density: IndividualLogDensity, generator: Generator
) -> None:
    """Warn of individuals for which many draws have no density."""
    share = density.total.isnan().double().mean()
    warn_user(
        f"The density of {_named(cohort.ids)} is NaN at {float(share):.0%} of the draws near the "
        f"prior{_where(structure, cohort, density, generator)}. Such draws have no weight: the "
        "posterior is that of the others. Look for logarithms, roots and divisions whose argument "
        "can be negative, and for priors with impossible parameters."
    )


def _where(
    structure: ModelStructure, cohort: Cohort, density: IndividualLogDensity, generator: Generator
) -> str:
    """Which sites have no density, and the first value, in words."""
    if bool(density.individual.isnan().any()) or not bool(density.individual.isfinite().any()):
        return f", that of the latent sites {list(structure.individual)}"
    for population in structure.draw_populations(cohort, DEFAULTS.num_further, generator):
        draws = structure.draw_individuals(cohort, population, 1, generator)
        for name, log_prob in value_log_probs(structure, cohort, draws, population).items():
            cells = ~log_prob[0].isfinite() & cohort[name].observed
            if bool(cells.any()):
                return f", first for {_value_words(cohort, name, cells)}"
    return ""


def _named(ids: tuple[str, ...]) -> str:
    noun = "individual" if len(ids) == 1 else f"{len(ids)} individuals"
    return f"{noun} {first_few(ids, DEFAULTS.max_named)}"


def _value_words(cohort: Cohort, name: str, cells: Tensor) -> str:
    """The first of some cells: value, series, time, individual."""
    first = cells.nonzero()[0].tolist()
    value, time = cohort[name].values[tuple(first)], cohort[name].times[first[0], first[1]]
    return (
        f"the value {float(value):g} of {name!r} at time {float(time):g} of individual "
        f"{cohort.ids[first[0]]}"
    )


def _check_supports(structure: ModelStructure, cohort: Cohort, generator: Generator) -> None:
    """Raise if a recorded value is one that its distribution never has."""
    population = structure.draw_populations(cohort, 1, generator)[0]
    draws = structure.draw_individuals(cohort, population, 1, generator)[0]
    trace = run_program(structure.model, cohort, Assign(population, structure.individual, draws))
    for name, site in structure.observed.items():
        _check_impossible(trace.nodes[name], cohort, site.series)
        inside = _in_support(trace.nodes[name])
        if inside is None:
            continue
        cells = ~individual_rows(site, inside) & cohort[site.series].observed
        if bool(cells.any()):
            distribution, _ = each_value(trace.nodes[name]["fn"])
            rows = cells.flatten(1).any(1).nonzero()[:, 0].tolist()
            expected, fix = _expected_values(distribution)
            raise ModelError(
                f"{int(cells.sum())} recorded values lie outside the support of their "
                f"distribution ({type(distribution).__name__}), of "
                f"{_named(tuple(cohort.ids[i] for i in rows))}; first "
                f"{_value_words(cohort, site.series, cells)}.",
                expected,
                fix,
            )


def _check_impossible(node: Any, cohort: Cohort, series: str) -> None:
    """Raise if a distribution of all values of an individual calls some of them impossible."""
    inner = innermost(node["fn"])
    if not hasattr(inner, "impossible"):
        return
    observed = cohort[series].observed
    for words, found in inner.impossible(node["value"]).items():
        cells = found & (observed.all(-1) if observed.dim() > found.dim() else observed)
        if bool(cells.any()):
            rows = cells.any(-1).nonzero()[:, 0].tolist()
            place = cells.nonzero()[0].tolist()
            value = cohort[series].values[tuple(place)].flatten()[0]
            raise ModelError(
                f"{int(cells.sum())} recorded values of {series!r} {words}: of "
                f"{_named(tuple(cohort.ids[i] for i in rows))}; first the value {float(value):g} "
                f"of individual {cohort.ids[place[0]]}.",
                "values that the distribution of the site can have.",
                f"correct the data of the series, or what is passed to `{type(inner).__name__}`.",
            )


def _expected_values(distribution: Any) -> tuple[str, str]:
    """What a distribution expects, and how data come to fit it."""
    kind = outcome_kind(distribution)
    if kind == "category":
        support = distribution.support
        largest = int(torch.as_tensor(getattr(support, "upper_bound", 1)).max())
        return (
            f"the numbers of the categories, 0 to {largest}.",
            "code the first category as 0, the next one as 1, and so on; a category more needs a "
            "probability (a cut point) more.",
        )
    if kind == "count":
        return (
            "whole numbers, from 0 on, and at most the number of trials where there is one.",
            "correct the counts; a mean, a rate or a difference of counts is no count.",
        )
    return (
        "values that the distribution of the site can have.",
        "a value of 0 under a log-normal error is one below the limit of quantification "
        "(`nlme.Censored`, CENS and LLOQ in a table) or was not recorded; otherwise use another "
        "error, for instance `nlme.combined_error`.",
    )


def _in_support(node: Any) -> Tensor | None:
    """Whether each value of a site is in the support of its distribution, shape of the value; None
    where the support depends on the parameters, or is not that of single values. The number of
    categories or of trials is no such parameter.
    """
    distribution, _ = each_value(node["fn"])
    support = getattr(type(distribution), "support", None)
    if outcome_kind(distribution) in ("count", "category"):
        support = distribution.support
    if distribution.event_dim or not isinstance(support, constraints.Constraint):
        return None
    if constraints.is_dependent(support) or support.event_dim:  # a dependent one may have no number
        return None
    value: Tensor = node["value"]
    return support.check(value).expand(value.shape)
