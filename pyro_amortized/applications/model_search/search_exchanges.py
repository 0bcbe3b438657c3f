r"""Exchanges: a term of the model for another one with as many parameters.

Two terms may explain the same thing: with a correlation of clearance and volume that the model does
not have yet, a covariate of clearance also seems to act on volume. Whichever is added first makes
the other one unnecessary. So the search also asks whether the model with one in place of the other
has a higher likelihood. The quadratic at the present model ranks the exchanges, and the best is
fitted.
"""

import math
from typing import NamedTuple

import numpy as np

from ...model.extended_program import CorrelatedBlock, ErrorPart, Term
from ...population.comparison.model_comparison import difference
from .score_expansion import Expansion, ScoreTest, expand
from .search_candidates import Candidate, Request, candidates_for, size_without, without
from .search_path import SearchPath, unexplained_variances
from .search_refits import FittedExtension, Refits, start_with
from .search_removals import distance_from_absence
from .search_result import SearchStep
from .search_settings import SEARCH, RatioDistribution
from .selection_frequencies import Quadratic, TermGroup


class QuadraticTerms(NamedTuple):
    r"""The terms of a model and the candidates on the quadratic at its fit.

    Args:
        expansion: The quadratic.
        included: Terms of the model whose parameters it has.
        candidates: Candidates that the data tell from the model.
        tests: Their score tests.
        sizes: What the distributions of their tests depend on.
        groups: Parameters of the included terms, then of the candidates.
    """

    expansion: Expansion
    included: list[Term]
    candidates: list[Candidate]
    tests: list[ScoreTest]
    sizes: list[RatioDistribution]
    groups: list[TermGroup]


def quadratic_terms(model: FittedExtension, request: Request) -> QuadraticTerms:
    """All terms on the quadratic at a fit."""
    fit, extension, num = model.fit, model.extension, len(model.fit.cohort)
    found, _ = candidates_for(fit, extension, request)
    expansion = expand(fit, found)
    tested = [expansion.test(number, x.one_sided) for number, x in enumerate(found)]
    if any(test is None for test in tested):
        # A parameter of no term would be free in every model, and stand in for a term of the model
        # that says the same.
        found = [x for x, test in zip(found, tested, strict=True) if test is not None]
        expansion = expand(fit, found)
    position = {p: n for n, p in enumerate(fit.estimated.nonzero()[:, 0].tolist())}
    included: list[Term] = []
    groups: list[TermGroup] = []
    for term in extension.terms:
        own = fit.structure.coordinates({term.site}).nonzero()[:, 0].tolist()
        # The absence of a part of the error lies at infinity in unconstrained coordinates.
        if not isinstance(term, ErrorPart) and all(p in position for p in own):
            size = size_without(extension, term, term.num_parameters, num)
            numbers = tuple(position[p] for p in own)
            groups.append(
                TermGroup(numbers, tuple(distance_from_absence(fit, term).tolist()), size)
            )
            included.append(term)
    candidates: list[Candidate] = []
    tests: list[ScoreTest] = []
    sizes: list[RatioDistribution] = []
    for number, candidate in enumerate(found):
        test = expansion.test(number, candidate.one_sided)
        if test is not None:
            size = size_without(extension, candidate.term, candidate.num_added, num)
            numbers = expansion.groups[number]
            groups.append(TermGroup(numbers, (0.0,) * len(numbers), size))
            candidates.append(candidate)
            tests.append(test)
            sizes.append(size)
    return QuadraticTerms(expansion, included, candidates, tests, sizes, groups)


def exchange_terms(path: SearchPath, refits: Refits, request: Request) -> SearchPath:
    """The path after the most promising exchange, if it raises the likelihood."""
    current = path.current
    if not current.extension.terms:
        return path
    terms = quadratic_terms(current, request)
    best = _most_promising(terms)
    if best is None:
        return path
    term, number, promised = best
    candidate = terms.candidates[number]
    start = start_with(current, candidate, terms.tests[number])
    start = {name: x for name, x in start.items() if name != term.site}
    extension = candidate.added_to(without(current.extension, term))
    model = refits.of(current, [(extension, start)])[0]
    if isinstance(model, str):
        return path
    change = difference(current.fit, model.fit)
    fall, error = change.minus2ll, change.minus2ll_mc_error
    accepted = math.isfinite(fall) and fall > SEARCH.errors * error
    step = SearchStep(
        action="exchange",
        term=f"{candidate.name} for {term.name}",
        minus2ll=model.fit.minus2ll,
        difference=fall,
        mc_error=error,
        score=promised,
        accepted=accepted,
        variance=unexplained_variances(model.fit),
        reason="exchanged: the likelihood is higher" if accepted else "refused: it is no better",
    )
    return path.after(model, step)


def _most_promising(terms: QuadraticTerms) -> tuple[Term, int, float] | None:
    """The term, the number of its substitute, and the fall of -2LL that the quadratic promises;
    None if no exchange comes near the present likelihood.
    """
    num = len(terms.included)
    quadratic = Quadratic(
        np.asarray(terms.expansion.scores.sum(0)),
        np.asarray(terms.expansion.information),
        terms.groups,
    )
    present = frozenset(range(num))
    here, best = quadratic.minus2ll(present), None
    least = -SEARCH.near_exchange
    for g, term in enumerate(terms.included):
        for number, candidate in enumerate(terms.candidates):
            if not _is_exchange(term, candidate):
                continue
            fall = here - quadratic.minus2ll(present - {g} | {num + number})
            if fall > least:
                best, least = (term, number, fall), fall
    return best


def _is_exchange(term: Term, candidate: Candidate) -> bool:
    """Whether a candidate has as many parameters as a term, and does not contain it."""
    contains = (
        isinstance(term, CorrelatedBlock)
        and isinstance(candidate.term, CorrelatedBlock)
        and bool(set(term.entries) & set(candidate.term.entries))
    )
    return candidate.num_added == term.num_parameters and not contains and not candidate.one_sided
