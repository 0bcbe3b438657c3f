r"""The path of a search: which terms are tried, fitted, added and removed.

Candidates are ranked by their score tests; the best is fitted, and the likelihood-ratio test on
common draws decides. A difference that its Monte Carlo error could explain is never accepted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ...errors import FitError
from ...model.individual_priors import individual_priors
from ...population.comparison.model_comparison import difference
from ...population.results.fit_result import PopulationFit
from ...runtime.workers import Workers
from .score_expansion import ScoreTest, expand
from .search_candidates import Candidate, Request, candidates_for, size_without
from .search_refits import (
    FittedExtension,
    Refits,
    neutral_start,
    start_with,
)
from .search_removals import Removal, removals_of
from .search_result import SearchStep
from .search_settings import SEARCH, SearchRule


@dataclass(frozen=True, eq=False)
class SearchPath:
    r"""How far a search has come.

    Args:
        current: The model that it is at.
        steps: Every fitted model.
        num_tests: Number of tests so far.
        skipped: What is not tested, and why.
    """

    current: FittedExtension
    steps: tuple[SearchStep, ...]
    num_tests: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    def after(self, model: FittedExtension, step: SearchStep) -> "SearchPath":
        """The path with one more model that was tested; it goes on from an accepted one."""
        current = model if step.accepted else self.current
        return replace(
            self, current=current, steps=(*self.steps, step), num_tests=self.num_tests + 1
        )


class Ranked(NamedTuple):
    """A candidate, its score test, and the part of what the rule needs that this promises."""

    candidate: Candidate
    test: ScoreTest
    share: float


def first_step(fit: PopulationFit) -> SearchStep:
    """The row of the fit that a search begins with."""
    variance = unexplained_variances(fit)
    return SearchStep("start", "", fit.minus2ll, accepted=True, variance=variance, reason="the fit")


def unexplained_variances(fit: PopulationFit) -> dict[str, float]:
    """Mean over the individuals of the variance of every individual parameter, by name."""
    priors = individual_priors(fit.structure, fit.individuals.cohort, fit.estimates)
    variance = priors.standard_deviations.square().mean(0).tolist()
    return dict(zip(fit.structure.latent_names, variance, strict=True))


def check_usable(fit: PopulationFit) -> None:
    r"""Raise unless score tests of a fit are possible.

    Raises:
        FitError: There are too few individuals, the fit has no standard errors, or it is
            likelihood-free.
    """
    if fit.estimator != "corrected":
        raise FitError(
            "A search from a likelihood-free fit.",
            "a fit of a model with a density: the errors of a learned one are as large as the "
            "differences between models.",
            "compare a few models by `compare`, with the same guide.",
        )
    if len(fit.cohort) < SEARCH.min_individuals:
        raise FitError(
            f"A search with {len(fit.cohort)} individuals.",
            f"at least {SEARCH.min_individuals}.",
            "choose the model by other knowledge, or collect more data.",
        )
    if not bool(fit.estimated.any()):
        raise FitError(
            "A search from a fit without standard errors.",
            "a fit that converged: score tests need its information.",
            "improve the fit first (`fit.message`).",
        )


def ranked_candidates(
    path: SearchPath, request: Request, rule: SearchRule
) -> tuple[SearchPath, list[Ranked]]:
    """All candidates at the present model, the most promising first."""
    fit, num = path.current.fit, len(path.current.fit.cohort)
    candidates, skipped = candidates_for(fit, path.current.extension, request)
    path = replace(path, skipped=path.skipped | skipped)
    if not candidates:
        return path, []
    expansion, found = expand(fit, candidates), []
    for number, candidate in enumerate(candidates):
        test = expansion.test(number, candidate.one_sided)
        if test is None:
            skipped[candidate.name] = "the data do not tell it from the parameters of the model"
            continue
        size = size_without(path.current.extension, candidate.term, candidate.num_added, num)
        needed = rule.needed(size)
        found.append(Ranked(candidate, test, test.statistic / needed))
    path = replace(path, num_tests=path.num_tests + len(found), skipped=path.skipped | skipped)
    return path, sorted(found, key=lambda x: -x.share)


def add_terms(path: SearchPath, refits: Refits, request: Request, rule: SearchRule) -> SearchPath:
    """Forward inclusion until no candidate is accepted."""
    begin = len(path.current.extension.terms)
    while len(path.current.extension.terms) < begin + rule.max_terms:
        path, ranked = ranked_candidates(path, request, rule)
        promising = [x for x in ranked if x.share > SEARCH.screening][: SEARCH.max_refused]
        before = path.current
        path = _best_added(path, refits, promising, rule)
        if path.current is before:
            break
    return path


def _best_added(
    path: SearchPath, refits: Refits, promising: Sequence[Ranked], rule: SearchRule
) -> SearchPath:
    """The path after the first of some candidates that is accepted."""
    workers = Workers.active()
    size = 1 if workers is None else workers.num_workers
    for begin in range(0, len(promising), size):
        batch = promising[begin : begin + size]
        tasks = [
            (
                x.candidate.added_to(path.current.extension),
                start_with(path.current, x.candidate, x.test),
                neutral_start(path.current, x.candidate),
            )
            for x in batch
        ]
        for ranked, model in zip(batch, refits.of(path.current, tasks), strict=True):
            if isinstance(model, str):
                skipped = path.skipped | {ranked.candidate.name: f"its fit failed: {model}"}
                path = replace(path, skipped=skipped)
                continue
            step = _addition(path.current, model, ranked, rule)
            path = path.after(model, step)
            if step.accepted:
                return path
    return path


def _addition(
    current: FittedExtension, model: FittedExtension, ranked: Ranked, rule: SearchRule
) -> SearchStep:
    change = difference(current.fit, model.fit)
    candidate, num = ranked.candidate, len(model.fit.cohort)
    size = size_without(current.extension, candidate.term, candidate.num_added, num)
    needed = rule.needed(size)
    fall, error = change.minus2ll, change.minus2ll_mc_error
    accepted, reason = decision(fall, error, needed)
    return SearchStep(
        action="add",
        term=candidate.name,
        minus2ll=model.fit.minus2ll,
        difference=fall,
        mc_error=error,
        freedom=size.freedom,
        p_value=size.p_value(fall),
        score=ranked.test.statistic,
        accepted=accepted,
        variance=unexplained_variances(model.fit),
        reason=reason,
    )


def decision(fall: float, error: float, needed: float) -> tuple[bool, str]:
    """Whether a fall of -2LL with a Monte Carlo error is enough for a term, and why."""
    if not math.isfinite(fall):
        return False, "refused: the difference is not finite"
    if fall < SEARCH.errors * error:
        return False, "refused: the difference is within its Monte Carlo error"
    if fall < needed:
        return False, f"refused: {needed:.2f} is needed"
    if fall - needed < SEARCH.errors * error:
        return True, "added; the margin is within the Monte Carlo error"
    return True, "added"


def remove_terms(path: SearchPath, refits: Refits, rule: SearchRule) -> SearchPath:
    """Backward elimination until every term is needed."""
    while True:
        before = path.current
        path = _worst_removed(path, refits, rule)
        if path.current is before:
            return path


def _worst_removed(path: SearchPath, refits: Refits, rule: SearchRule) -> SearchPath:
    """The path after the least needed term has been removed, if one is."""
    current = path.current
    doubtful: list[tuple[float, Removal]] = []
    removals = removals_of(current)
    for removal in removals:
        share = removal.statistic / rule.kept(removal.size)
        if not share > SEARCH.sure and not _last_added(path, removal):  # NaN: not known
            doubtful.append((share if share == share else 0.0, removal))
    path = replace(path, num_tests=path.num_tests + len(removals))
    for _, removal in sorted(doubtful, key=lambda x: x[0]):
        model = refits.of(current, [(removal.extension, removal.start)])[0]
        if isinstance(model, str):
            continue
        step = _removal_step(current, model, removal, rule)
        path = path.after(model, step)
        if step.accepted:
            return path
    return path


def _last_added(path: SearchPath, removal: Removal) -> bool:
    """Whether a term was the last that was accepted, so that its removal was just tested."""
    accepted = [step for step in path.steps if step.accepted]
    return accepted[-1].action == "add" and accepted[-1].term == removal.name


def _removal_step(
    current: FittedExtension, model: FittedExtension, removal: Removal, rule: SearchRule
) -> SearchStep:
    change = difference(model.fit, current.fit)
    rise, error = change.minus2ll, change.minus2ll_mc_error
    kept = rule.kept(removal.size)
    accepted = math.isfinite(rise) and rise < kept
    reason = "removed" if accepted else f"kept: {kept:.2f} is needed"
    if abs(rise - kept) < SEARCH.errors * error:
        reason += "; the margin is within the Monte Carlo error"
    return SearchStep(
        action="remove",
        term=removal.name,
        minus2ll=model.fit.minus2ll,
        difference=rise,
        mc_error=error,
        freedom=removal.size.freedom,
        p_value=removal.size.p_value(rise),
        score=removal.statistic,
        accepted=accepted,
        variance=unexplained_variances(model.fit),
        reason=reason,
    )
