r"""How often a search would choose a term if other individuals had been observed.

The log likelihood is replaced by its quadratic approximation at the chosen model
(:mod:`pyro_amortized.applications.model_search.score_expansion`), with the parameters of the terms
that were not chosen. In a cohort of individuals that are drawn with replacement, individual i
occurs :math:`n_i` times, and the score is :math:`\sum_i n_i s_i`; the information is that of the
data. On this quadratic the whole search, forward and backward, takes milliseconds and no fit. It is
an approximation: the variance that a term explains stays explained when the term is left out, and
the draws of the individuals stay the same.

References:
    Sauerbrei and Schumacher (1992), A bootstrap resampling procedure for model building; Hu and
    Kalbfleisch (2000), The estimating function bootstrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .search_settings import SEARCH, RatioDistribution, SearchRule


@dataclass(frozen=True, eq=False)
class TermGroup:
    r"""The parameters of one term in the quadratic.

    Args:
        numbers: Numbers of its parameters.
        values: Their values at the centre of the quadratic; zero for a term that was not chosen.
        size: What the distribution of the fall of -2LL depends on.
    """

    numbers: tuple[int, ...]
    values: tuple[float, ...]
    size: RatioDistribution


class Quadratic:
    r"""A log likelihood :math:`U^\top \delta - \tfrac12 \delta^\top I \delta` and its terms.

    Args:
        score: U, shape ``(parameter,)``.
        information: I, shape ``(parameter, parameter)``.
        groups: The terms.
    """

    def __init__(
        self, score: np.ndarray, information: np.ndarray, groups: Sequence[TermGroup]
    ) -> None:
        self.score, self.information, self.groups = score, information, groups
        self.centers = np.zeros(len(score))
        for group in groups:
            self.centers[list(group.numbers)] = group.values
        self._known: dict[frozenset[int], float] = {}

    def minus2ll(self, present: frozenset[int]) -> float:
        """-2 log likelihood at the maximum with some of the terms, but for a constant."""
        if present not in self._known:
            self._known[present] = self._minus2ll(present)
        return self._known[present]

    def _minus2ll(self, present: frozenset[int]) -> float:
        absent = np.array(
            [n for g, x in enumerate(self.groups) if g not in present for n in x.numbers], dtype=int
        )
        kept = np.setdiff1d(np.arange(len(self.score)), absent)
        fixed = -self.centers[absent]
        slope = self.score[kept] - self.information[np.ix_(kept, absent)] @ fixed
        step = determined_step(self.information[np.ix_(kept, kept)], slope)
        wrong = [
            g
            for g in present
            if self.groups[g].size.one_sided
            and step[np.searchsorted(kept, self.groups[g].numbers[0])] < 0
        ]
        if wrong:  # a variance cannot be negative: it is zero
            return self.minus2ll(present - set(wrong))
        own = self.information[np.ix_(absent, absent)]
        value = slope @ step / 2 + self.score[absent] @ fixed - fixed @ own @ fixed / 2
        return float(-2 * value)


def determined_step(information: np.ndarray, slope: np.ndarray) -> np.ndarray:
    r"""The maximum of a quadratic, with no step along what its information does not determine.

    Two covariates that say the same (a weight in kilograms and in pounds) leave a direction without
    information: one of them in the model is enough.

    Args:
        information: Shape ``(parameter, parameter)``.
        slope: Shape ``(parameter,)``.

    Example:
        >>> same = np.array([[4.0, 4.0], [4.0, 4.0]])
        >>> round(float(np.array([2.0, 2.0]) @ determined_step(same, np.array([2.0, 2.0]))), 9)
        1.0
    """
    size = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    scaled = information / np.outer(size, size)
    try:
        # A pivot is the part of the information of a parameter that the ones before it leave.
        enough = np.linalg.cholesky(scaled).diagonal() ** 2 > SEARCH.min_information
    except np.linalg.LinAlgError:
        enough = np.array([False])
    if enough.all():
        return np.linalg.solve(information, slope)
    values, vectors = np.linalg.eigh(scaled)
    kept = vectors[:, values > SEARCH.min_information]
    found = values[values > SEARCH.min_information]
    return kept @ ((kept.T @ (slope / size)) / found) / size


def chosen_terms(quadratic: Quadratic, rule: SearchRule, always: frozenset[int]) -> frozenset[int]:
    """The terms that forward inclusion and backward elimination choose on a quadratic."""
    present = always
    for _ in range(SEARCH.max_rounds):
        before = present
        present = _forward(quadratic, rule, present)
        present = _backward(quadratic, rule, present, always)
        if present == before:
            break
    return present


def _forward(quadratic: Quadratic, rule: SearchRule, present: frozenset[int]) -> frozenset[int]:
    """Forward inclusion of at most ``rule.max_terms`` terms, as in a round of the search itself."""
    limit = len(present) + rule.max_terms
    while len(present) < limit:
        here, best, most = quadratic.minus2ll(present), None, 0.0
        for g, group in enumerate(quadratic.groups):
            if g in present:
                continue
            excess = here - quadratic.minus2ll(present | {g}) - rule.needed(group.size)
            if excess > most:
                best, most = g, excess
        if best is None:
            break
        present = present | {best}
    return present


def _backward(
    quadratic: Quadratic,
    rule: SearchRule,
    present: frozenset[int],
    always: frozenset[int],
) -> frozenset[int]:
    while True:
        here, worst, least = quadratic.minus2ll(present), None, 0.0
        for g in present - always:
            kept = rule.kept(quadratic.groups[g].size)
            excess = quadratic.minus2ll(present - {g}) - here - kept
            if excess < least:
                worst, least = g, excess
        if worst is None:
            return present
        present = present - {worst}


def inclusion_frequencies(
    scores: np.ndarray,
    information: np.ndarray,
    groups: Sequence[TermGroup],
    rule: SearchRule,
    *,
    always: frozenset[int] = frozenset(),
    seed: int = 0,
) -> np.ndarray:
    r"""Part of the bootstrapped cohorts in which each term is chosen.

    Args:
        scores: Of every individual at the centre, shape ``(individual, parameter)``.
        information: Shape ``(parameter, parameter)``.
        groups: The terms.
        rule: How terms are chosen, and the number of cohorts.
        always: Numbers of terms that are in every model.
        seed: Seed of the cohorts.

    Returns:
        Shape ``(term,)``.
    """
    generator, num = np.random.default_rng(seed), len(scores)
    counts = np.zeros(len(groups))
    for _ in range(rule.num_replicates):
        times = np.bincount(generator.integers(num, size=num), minlength=num)
        quadratic = Quadratic(times @ scores, information, groups)
        for g in chosen_terms(quadratic, rule, always):
            counts[g] += 1
    return counts / max(rule.num_replicates, 1)
