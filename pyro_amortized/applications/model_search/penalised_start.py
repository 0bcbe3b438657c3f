r"""The start of a search by a penalised path: an adaptive lasso on the quadratic at the first fit.

With score U and information V of all coefficients of covariates, adjusted for the parameters of the
model, and the unpenalised coefficients :math:`\hat b = V^{-1} U`,

.. math:: b(\lambda) = \arg\min_b \tfrac12 b^\top V b - U^\top b + \lambda \sum_j |b_j| / |\hat
    b_j| .

The supports along the path are ranked by the BIC of the quadratic; the best is fitted.

References:
    Zou (2006), The adaptive lasso and its oracle properties; Wang and Leng (2007), Unified lasso
    estimation by least squares approximation.
"""

import math
from dataclasses import replace

import numpy as np
import torch

from ...model.extended_program import CovariateEffect
from ...population.comparison.model_comparison import difference
from .score_expansion import expand
from .search_candidates import Request, candidates_for
from .search_path import Path, unexplained_variances
from .search_refits import Fitted, Refits
from .search_result import SearchStep
from .search_settings import SEARCH, SearchRule
from .selection_frequencies import determined_step


def lasso_path(information: np.ndarray, score: np.ndarray) -> list[frozenset[int]]:
    """Different supports of the adaptive lasso, from the strongest penalty to the weakest."""
    unpenalised = np.linalg.lstsq(information, score, rcond=None)[0]
    weight = 1 / np.maximum(np.abs(unpenalised), 1e-300)
    strongest = float(np.max(np.abs(score) / weight))
    b, supports = np.zeros(len(score)), []
    for share in np.geomspace(1.0, SEARCH.weakest_penalty, SEARCH.num_penalties):
        b = _lasso(information, score, share * strongest * weight, b)
        support = frozenset(np.flatnonzero(b).tolist())
        if support and support not in supports:
            supports.append(support)
    return supports


def _lasso(v: np.ndarray, u: np.ndarray, penalty: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The coefficients with penalties of their own, by coordinate descent from a start."""
    b = b.copy()
    for _ in range(SEARCH.max_sweeps):
        before = b.copy()
        for j in range(len(b)):
            slope = u[j] - v[j] @ b + v[j, j] * b[j]
            b[j] = math.copysign(max(abs(slope) - penalty[j], 0.0), slope) / v[j, j]
        if np.max(np.abs(b - before)) <= SEARCH.settled * np.max(np.abs(b), initial=1e-300):
            break
    return b


def penalised_start(path: Path, refits: Refits, request: Request, rule: SearchRule) -> Path:
    """The path after the covariate effects that the penalised path chooses have been fitted."""
    fit, extension = path.current.fit, path.current.extension
    found, skipped = candidates_for(fit, extension, request)
    candidates = [c for c in found if isinstance(c.term, CovariateEffect)]
    if not candidates:
        return path
    expansion = expand(fit, candidates)
    groups = [list(g) for g in expansion.groups]
    own, model = [n for g in groups for n in g], list(range(expansion.num_free))
    info, score = expansion.information, expansion.scores.sum(0)
    answer = torch.linalg.solve(info[model][:, model], info[model][:, own])
    v = (info[own][:, own] - info[own][:, model] @ answer).numpy()
    u = (score[own] - answer.T @ score[model]).numpy()
    begin = len(model)
    best, least = frozenset[int](), 0.0
    for support in lasso_path(v, u):
        chosen = frozenset(k for k, g in enumerate(groups) if {n - begin for n in g} & support)
        rows = [n - begin for k in sorted(chosen) for n in groups[k]]
        fall = float(u[rows] @ determined_step(v[np.ix_(rows, rows)], u[rows]))
        bic = len(rows) * math.log(len(fit.cohort)) - fall
        if bic < least and len(chosen) <= rule.max_terms:
            best, least = chosen, bic
    path = replace(path, num_tests=path.num_tests + len(candidates), skipped=path.skipped | skipped)
    if not best:
        return path
    terms = [candidates[k] for k in sorted(best)]
    start = dict(fit.estimates)
    rows = [n - begin for k in sorted(best) for n in groups[k]]
    values = iter(determined_step(v[np.ix_(rows, rows)], u[rows]))
    for candidate in terms:
        term = candidate.term
        assert isinstance(term, CovariateEffect)
        extension = candidate.added_to(extension)
        estimate = torch.tensor([next(values) for _ in range(candidate.num_added)]).double()
        start[term.site] = estimate if term.form == "category" else estimate[0]
    model_fit = refits.of(path.current, [(extension, start)])[0]
    if isinstance(model_fit, str):
        return path
    return _with_step(path, model_fit, -least + len(rows) * math.log(len(fit.cohort)), len(rows))


def _with_step(path: Path, model: Fitted, promised: float, freedom: int) -> Path:
    change = difference(path.current.fit, model.fit)
    fall, error = change.minus2ll, change.minus2ll_mc_error
    needed = freedom * math.log(len(model.fit.cohort))
    accepted = fall > needed and fall > SEARCH.errors * error
    new = set(model.extension.terms) - set(path.current.extension.terms)
    step = SearchStep(
        action="add",
        term=", ".join(term.name for term in model.extension.effects if term in new),
        minus2ll=model.fit.minus2ll,
        difference=fall,
        mc_error=error,
        freedom=freedom,
        score=promised,
        accepted=accepted,
        variance=unexplained_variances(model.fit),
        reason="the support of the penalised path",
    )
    path = replace(path, num_tests=path.num_tests + 1)
    return path.accepted(model, step) if accepted else path.refused(step)
