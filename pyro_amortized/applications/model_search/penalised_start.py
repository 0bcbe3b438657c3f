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
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from ...model.extended_program import CovariateEffect
from ...population.comparison.model_comparison import difference
from .score_expansion import Expansion, expand
from .search_candidates import Request, candidates_for
from .search_path import SearchPath, unexplained_variances
from .search_refits import FittedExtension, Refits
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


def penalised_start(
    path: SearchPath, refits: Refits, request: Request, rule: SearchRule
) -> SearchPath:
    """The path after the covariate effects that the penalised path chooses have been fitted."""
    fit, extension = path.current.fit, path.current.extension
    found, skipped = candidates_for(fit, extension, request)
    candidates = [c for c in found if isinstance(c.term, CovariateEffect)]
    if not candidates:
        return path
    quadratic = _quadratic(expand(fit, candidates))
    chosen, bic = quadratic.best_support(len(fit.cohort), rule.max_terms)
    path = replace(path, num_tests=path.num_tests + len(candidates), skipped=path.skipped | skipped)
    if not chosen:
        return path
    start = dict(fit.estimates)
    estimates, _ = quadratic.step(chosen)
    values = iter(estimates)
    for candidate in (candidates[k] for k in chosen):
        term = candidate.term
        assert isinstance(term, CovariateEffect)
        extension = candidate.added_to(extension)
        estimate = torch.tensor([next(values) for _ in range(candidate.num_added)]).double()
        start[term.site] = estimate if term.form == "category" else estimate[0]
    model = refits.of(path.current, [(extension, start)])[0]
    if isinstance(model, str):
        return path
    num = len(estimates)
    return _with_step(path, model, num * math.log(len(fit.cohort)) - bic, num)


class _CoefficientQuadratic(NamedTuple):
    """Information and score of the coefficients of all candidates, adjusted for the parameters of
    the model, and for each candidate the numbers of its coefficients.
    """

    information: np.ndarray
    score: np.ndarray
    groups: list[list[int]]

    def step(self, chosen: Sequence[int]) -> tuple[np.ndarray, float]:
        """Estimates of the coefficients of some candidates, and the fall of -2LL they promise."""
        rows = [n for k in chosen for n in self.groups[k]]
        estimates = determined_step(self.information[np.ix_(rows, rows)], self.score[rows])
        return estimates, float(self.score[rows] @ estimates)

    def best_support(self, num_individuals: int, max_terms: int) -> tuple[list[int], float]:
        """The candidates of the path with the lowest BIC, and its change by them."""
        best, least = list[int](), 0.0
        for support in lasso_path(self.information, self.score):
            chosen = [k for k, group in enumerate(self.groups) if support & set(group)]
            estimates, fall = self.step(chosen)
            bic = len(estimates) * math.log(num_individuals) - fall
            if bic < least and len(chosen) <= max_terms:
                best, least = chosen, bic
        return best, least


def _quadratic(expansion: Expansion) -> _CoefficientQuadratic:
    own = [n for group in expansion.groups for n in group]
    _, score, information = expansion.adjusted(own)
    places = iter(range(len(own)))
    groups = [[next(places) for _ in group] for group in expansion.groups]
    return _CoefficientQuadratic(information.numpy(), score.numpy(), groups)


def _with_step(
    path: SearchPath, model: FittedExtension, promised: float, freedom: int
) -> SearchPath:
    change = difference(path.current.fit, model.fit)
    fall, error = change.minus2ll, change.minus2ll_mc_error
    needed = freedom * math.log(len(model.fit.cohort))
    new = set(model.extension.terms) - set(path.current.extension.terms)
    step = SearchStep(
        action="add",
        term=", ".join(term.name for term in model.extension.effects if term in new),
        minus2ll=model.fit.minus2ll,
        difference=fall,
        mc_error=error,
        freedom=freedom,
        score=promised,
        accepted=fall > needed and fall > SEARCH.errors * error,
        variance=unexplained_variances(model.fit),
        reason="the support of the penalised path",
    )
    return path.after(model, step)
