r"""The terms that a search may add to a program.

Every individual parameter that is normal on some scale may depend on every covariate, and any two
that the program draws independently may be correlated. A quantity x enters as :math:`\log(x /
\tilde x)` if it is positive (on a logarithmic scale: a power), else as :math:`x - \tilde x`, with
the median :math:`\tilde x`; a category as a difference from the most frequent one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort
from ...errors import SettingError
from ...model import ModelStructure
from ...model.extended_program import (
    CorrelatedBlock,
    CovariateEffect,
    CovariateForm,
    Entry,
    ErrorKind,
    ErrorPart,
    Extension,
    Term,
)
from ...model.freed_parameter import FreedParameter
from ...model.individual_priors import individual_priors
from ...numerics.gaussians import Gaussians
from ...population.results.fit_result import PopulationFit
from ...runtime.random_numbers import make_generator
from .search_settings import SEARCH, RatioDistribution


@dataclass(frozen=True)
class Candidate:
    r"""A term that may be added, and what the model is with it.

    Args:
        term: The term; a block of correlated parameters replaces those that it contains.
        pairs: Pairs of individual parameters, by their coordinates, that it correlates anew.
        num_added: Number of its new parameters.
    """

    term: Term
    pairs: tuple[tuple[int, int], ...] = ()
    num_added: int = 1

    @property
    def name(self) -> str:
        """In words."""
        return self.term.name

    @property
    def one_sided(self) -> bool:
        """Whether its parameter is a standard deviation, zero without it."""
        return isinstance(self.term, ErrorPart)

    def added_to(self, extension: Extension) -> Extension:
        """The extension with the term."""
        if isinstance(self.term, CovariateEffect):
            return replace(extension, effects=(*extension.effects, self.term))
        if isinstance(self.term, ErrorPart):
            return replace(extension, errors=(*extension.errors, self.term))
        if isinstance(self.term, FreedParameter):
            return replace(extension, freed=(*extension.freed, self.term))
        inside = set(self.term.entries)
        others = tuple(b for b in extension.blocks if not set(b.entries) <= inside)
        return replace(extension, blocks=(*others, self.term))


def size_of_test(
    extension: Extension, entries: Sequence[Entry], freedom: int, num_individuals: int
) -> RatioDistribution:
    """The size of the test of an effect on an individual parameter, or of correlations of several,
    in a model with an extension (without the term).
    """
    used = [1]
    for entry in entries:
        effects = sum(x.num_parameters for x in extension.effects if x.entry == entry)
        partners = sum(len(b.entries) - 1 for b in extension.blocks if entry in b.entries)
        used.append(1 + effects + partners)
    return RatioDistribution(freedom, num_individuals, max(used))


def size_without(
    extension: Extension, term: Term, freedom: int, num_individuals: int
) -> RatioDistribution:
    """The size of the test of a term in a model with an extension, which may have it already."""
    if isinstance(term, ErrorPart):
        return RatioDistribution(freedom, num_individuals, one_sided=True)
    if isinstance(term, FreedParameter):
        return RatioDistribution(freedom, num_individuals)
    smaller = without(extension, term)
    entries = [term.entry] if isinstance(term, CovariateEffect) else list(term.entries)
    return size_of_test(smaller, entries, freedom, num_individuals)


def without(extension: Extension, term: Term) -> Extension:
    """An extension without one of its terms."""
    if isinstance(term, CovariateEffect):
        return replace(extension, effects=tuple(x for x in extension.effects if x != term))
    if isinstance(term, CorrelatedBlock):
        return replace(extension, blocks=tuple(x for x in extension.blocks if x != term))
    if isinstance(term, FreedParameter):
        return replace(extension, freed=tuple(x for x in extension.freed if x != term))
    return replace(extension, errors=tuple(x for x in extension.errors if x != term))


class Request(NamedTuple):
    r"""What the search is asked for.

    Args:
        covariates: Names of covariates and their forms; None as a form: chosen by the values.
        entries: The individual parameters that may depend on covariates.
        correlated: Those that may be correlated, by their coordinate.
        errors: Parts of the residual error that may be added.
        freed: Sites that the fit holds and that may be estimated.
    """

    covariates: Mapping[str, CovariateForm | None]
    entries: Mapping[int, Entry]
    correlated: Mapping[int, Entry]
    errors: tuple[tuple[str, ErrorKind], ...]
    freed: tuple[FreedParameter, ...] = ()


def normal_entries(fit: PopulationFit) -> tuple[dict[int, Entry], dict[str, str]]:
    """The individual parameters that are normal in unconstrained coordinates, by their coordinate,
    and why the others cannot be changed, by name.
    """
    structure, entries, skipped, begin = fit.structure, {}, {}, 0
    is_normal = _is_normal(fit)
    for name, site in structure.individual.items():
        for j, label in enumerate(site.coordinate_names):
            if site.plates or site.dim != -1:
                skipped[label] = "it has a value for every entry of another plate"
            elif site.event_dim > 1:
                skipped[label] = "it is an entry of a matrix"
            elif not is_normal:
                skipped[label] = "the individual parameters are not normal on any scale"
            else:
                entries[begin + j] = Entry(name, j, label)
        begin += site.num_unconstrained
    return entries, skipped


def _is_normal(fit: PopulationFit) -> bool:
    """Whether the log density of the individual parameters is the normal one with their moments."""
    structure, cohort = fit.structure, fit.individuals.cohort
    priors = individual_priors(structure, cohort, fit.estimates)
    draws = structure.draw_individuals(cohort, fit.estimates, 3, make_generator(0))
    density = structure.log_individual(cohort, draws, fit.estimates)
    return bool(((density - priors.log_prob(draws)).abs() < SEARCH.normal_tolerance).all())


def covariate_form(name: str, values: Tensor, form: CovariateForm | None) -> CovariateForm:
    r"""The form in which a covariate enters: as it was asked for, or by its values.

    Raises:
        SettingError: The form is unknown, or the values do not have it.
    """
    if form not in (None, "power", "linear", "category"):
        raise SettingError(
            f"The form of the covariate {name!r} is {form!r}.",
            '"power", "linear", "category", or None to choose by the values.',
            "correct `covariates=`.",
        )
    is_positive = bool((values > 0).all())
    if form == "power" and not is_positive:
        raise SettingError(
            f"The covariate {name!r} has values down to {float(values.min()):g}.",
            "positive values, for a power.",
            f'pass `covariates={{"{name}": "linear"}}`.',
        )
    different = values.unique()
    is_category = len(different) <= SEARCH.max_levels and torch.equal(different, different.round())
    if form is not None:
        return form
    return "category" if is_category else "power" if is_positive else "linear"


def covariate_effect(
    cohort: Cohort, name: str, form: CovariateForm | None, entry: Entry, deviation: float
) -> CovariateEffect | str:
    """The effect of a covariate on an individual parameter with a standard deviation, or why there
    is none.
    """
    values = cohort.covariates[name].double()
    form = covariate_form(name, values, "category" if name in cohort.categories else form)
    different, counts = values.unique(return_counts=True)
    if len(different) < 2:
        return "it is the same for all individuals"
    if form != "category":
        middle = float(values.median())
        effect = CovariateEffect(entry, name, form, middle)
        spread = float(effect.columns(cohort).std())
        return replace(effect, scale=deviation / spread)
    reference = float(different[counts.argmax()])
    levels = tuple(float(x) for x in different if float(x) != reference)
    if int(counts.min()) < SEARCH.min_in_level:
        rare = float(different[counts.argmin()])
        return f"only {int(counts.min())} individuals have the category {rare:g}"
    known = cohort.categories.get(name)
    names = tuple(known[int(x)] for x in levels) if known else ()
    return CovariateEffect(entry, name, form, reference, levels, names, deviation)


def candidates_for(
    fit: PopulationFit, extension: Extension, request: Request
) -> tuple[list[Candidate], dict[str, str]]:
    """All terms that may be added to a fitted model, and why others are not tested."""
    cohort, structure = fit.individuals.cohort, fit.structure
    priors = individual_priors(structure, cohort, fit.estimates)
    deviations = priors.standard_deviations.mean(0)
    present = {(x.covariate, x.entry) for x in extension.effects}
    candidates, skipped = [], {}
    for name, form in request.covariates.items():
        for j, entry in request.entries.items():
            if (name, entry) in present:
                continue
            effect = covariate_effect(cohort, name, form, entry, float(deviations[j]))
            if isinstance(effect, str):
                skipped[name] = effect
            else:
                candidates.append(Candidate(effect, num_added=effect.num_parameters))
    candidates += _correlations(structure, extension, request, priors)
    for observed, kind in request.errors:
        part = ErrorPart(observed, kind, _size_of_error(cohort, observed, kind))
        if part.name not in {x.name for x in extension.errors}:
            candidates.append(Candidate(part))
    present_sites = {x.site for x in extension.freed}
    candidates += [
        Candidate(term, num_added=term.num_parameters)
        for term in request.freed
        if term.site not in present_sites
    ]
    return candidates, skipped


def _size_of_error(cohort: Cohort, observed: str, kind: ErrorKind) -> float:
    """A large part of the residual error: as the values vary, or a coefficient of variation of
    one.
    """
    series = cohort[observed]
    return float(series.values[series.observed].std()) if kind == "additive" else 1.0


def _correlations(
    structure: ModelStructure, extension: Extension, request: Request, priors: Gaussians
) -> list[Candidate]:
    """Blocks of two groups of individual parameters that are independent of each other."""
    deviations = priors.standard_deviations
    covariance = priors.scale_tril @ priors.scale_tril.mT
    correlation = covariance / (deviations.unsqueeze(-1) * deviations.unsqueeze(-2))
    related = correlation.abs().amax(0) > SEARCH.normal_tolerance
    by_entry = {entry: j for j, entry in request.correlated.items()}
    in_blocks = [frozenset(by_entry[e] for e in b.entries) for b in extension.blocks]
    alone = [
        frozenset({j})
        for j in request.correlated
        if not any(j in b for b in in_blocks)
        # Correlated by the program itself: its correlations are not those of a block of ours.
        and not bool(related[j][[k for k in range(structure.num_latent) if k != j]].any())
    ]
    groups = [*in_blocks, *alone]
    found = []
    for a, one in enumerate(groups):
        for two in groups[a + 1 :]:
            order = sorted(one | two)
            pairs = tuple((min(j, k), max(j, k)) for j in sorted(one) for k in sorted(two))
            block = CorrelatedBlock(tuple(request.correlated[j] for j in order))
            found.append(Candidate(block, pairs, len(pairs)))
    return found


def check_names(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    r"""Check that all names are known.

    Raises:
        SettingError: One is not.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        raise SettingError(
            f"{unknown} among the {what}.", f"some of {list(known)}.", f"correct the {what}."
        )
