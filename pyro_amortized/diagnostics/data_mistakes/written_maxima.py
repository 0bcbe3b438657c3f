r"""How much more likely data would be without a mistake in many individuals, which moves the
population as well.

With the scores :math:`s` at the estimates :math:`\hat\Psi`, whose covariance is C, the maximum lies
about :math:`C s` away and is :math:`s^\top C s / 2` higher. Scoring goes there. Where labels of two
groups are wrong in many individuals, the population of the file is a saddle: both groups are the
same mixture, and nothing says which labels are wrong. A second search then starts with those labels
wrong whose individuals lie nearer to the other group.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...population.results.fit_result import PopulationFit
from .written_alternatives import LEVEL
from .written_likelihoods import (
    Approximated,
    Compared,
    approximated,
    likelihood_scores,
    log_volume_of,
)


@dataclass(frozen=True)
class MaximumSettings:
    r"""Effort of the search.

    Args:
        max_move: Farthest move of the population, in standard errors, that the second order says
            something about.
        lowest: Log likelihood ratio at the estimates below which no move mends it.
        lengths: Lengths of a move of the population that are tried.
        num_moves: Most moves.
        min_gained: Gain of a move in log likelihood below which no other follows.
        num_splits: Rounds of the division of the individuals into two groups.
        wrong: Probability of a wrong label where an individual is nearer to the other group.
    """

    max_move: float = 5.0
    lowest: float = -30.0
    lengths: tuple[float, ...] = (0.5, 1.0, 2.0)
    num_moves: int = 8
    min_gained: float = 0.3
    num_splits: int = 20
    wrong: float = 0.95


DEFAULTS = MaximumSettings()


class _Found(NamedTuple):
    """A population, its individuals as written and changed, and the log likelihood of all."""

    vector: Tensor
    written: Approximated
    changed: Approximated
    value: float


class Maximum(NamedTuple):
    r"""An alternative at its own population.

    Args:
        ratio: Log likelihood ratio.
        probability: Probability of each individual that it is changed, shape ``(changed,)``.
    """

    ratio: float
    probability: Tensor


def at_maximum(
    fit: PopulationFit, compared: Compared, index: int, weights: Tensor, *, split: bool = False
) -> Maximum:
    r"""Log likelihood ratio of an alternative in many individuals at its own population.

    Args:
        fit: The fit.
        compared: What is compared.
        index: Index of the alternative.
        weights: Prior probabilities that the individuals are changed, shape ``(case, changed)``;
            the mean over the cases counts.
        split: Whether a second search starts with the labels wrong whose individuals lie nearer to
            the other group.
    """
    places = (weights > 0).any(0).nonzero()[:, 0]
    weights = weights[:, places]
    written, changed = compared.written, compared.changed[index].take(places)
    before = float(written.masses.sum())
    start = _Found(fit.vector, written, changed, before)
    best = _climbed(fit, compared, index, places, weights, start)
    if split and len(places) == len(written.masses):
        nearer = _nearer_to_the_other(fit, compared, index)
        likely = torch.where(nearer, DEFAULTS.wrong, 1 - DEFAULTS.wrong).unsqueeze(0)
        apart = _climbed(fit, compared, index, places, likely, start)
        other = _climbed(fit, compared, index, places, weights, apart)
        best = max(best, other, key=lambda x: x.value)
    rows = compared.alternatives[index].rows[places]
    probability = torch.zeros(len(compared.alternatives[index].rows), dtype=torch.float64)
    probability[places] = _probability(best.written, best.changed, rows, weights)
    return Maximum(best.value - before, probability)


def _climbed(
    fit: PopulationFit,
    compared: Compared,
    index: int,
    places: Tensor,
    weights: Tensor,
    start: _Found,
) -> _Found:
    """The maximum of the likelihood with these weights, near a start."""
    rows = compared.alternatives[index].rows[places]
    volume = log_volume_of(compared.alternatives[index])[places]

    def ratio(one: _Found) -> float:
        return _log_ratio(one.written.masses, one.changed.masses, rows, weights)

    best = _scored(fit, start)._replace(value=ratio(start))
    for _ in range(DEFAULTS.num_moves):
        score = best.written.scores.sum(0)
        score = score + _responsible(best.written, best.changed, rows, weights)
        moved = [_moved(fit, best, x * score, volume) for x in DEFAULTS.lengths]
        top = max((x._replace(value=ratio(x)) for x in moved), key=lambda x: x.value)
        if not top.value > best.value:
            break
        gained = top.value - best.value
        best = _scored(fit, top)
        if gained < DEFAULTS.min_gained:
            break
    return best


def _moved(fit: PopulationFit, start: _Found, score: Tensor, volume: Tensor) -> _Found:
    """The individuals at the population that a step of scoring leads to."""
    known = fit.estimated
    vector = start.vector.clone()
    vector[known] += fit.covariance[known][:, known] @ score
    written, changed = (
        approximated(fit, vector, x.cohort, (x.location, x.scale), None)
        for x in (start.written, start.changed)
    )
    return _Found(vector, written, changed._replace(masses=changed.masses + volume), -math.inf)


def _scored(fit: PopulationFit, one: _Found) -> _Found:
    return one._replace(
        written=_with_scores(fit, one.vector, one.written),
        changed=_with_scores(fit, one.vector, one.changed),
    )


def _with_scores(fit: PopulationFit, vector: Tensor, individuals: Approximated) -> Approximated:
    return individuals._replace(scores=likelihood_scores(fit, vector, individuals))


def _nearer_to_the_other(fit: PopulationFit, compared: Compared, index: int) -> Tensor:
    """Which individuals lie nearer to the other one of two groups, shape ``(changed,)``.

    The direction in which the groups of the file differ, in standard deviations within them, is
    divided at the place that leaves the smallest sum of squares.
    """
    rows = compared.alternatives[index].rows
    name = compared.alternatives[index].kind.removeprefix(LEVEL)
    group = fit.cohort.covariates[name][rows].double()
    is_high = group == group.max()
    location = compared.written.location[rows]
    means = [location[x].mean(0) for x in (is_high, ~is_high)]
    within = location - torch.where(is_high.unsqueeze(1), means[0], means[1])
    variances = within.square().mean(0).clamp(min=1e-300)
    place = (location - location.mean(0)) @ ((means[0] - means[1]) / variances)
    limit = place.mean()
    for _ in range(DEFAULTS.num_splits):
        above = place > limit
        if bool(above.all()) or not bool(above.any()):
            break
        limit = (place[above].mean() + place[~above].mean()) / 2
    return (place > limit) != is_high


def _log_ratio(written: Tensor, changed: Tensor, rows: Tensor, weights: Tensor) -> float:
    """Log likelihood of all individuals, a mean over the cases of the prior probabilities."""
    others = written.sum() - written[rows].sum()
    either = torch.logaddexp(torch.log1p(-weights) + written[rows], weights.log() + changed)
    return float((others + either.sum(1)).logsumexp(0)) - math.log(len(weights))


def _probability(
    written: Approximated, changed: Approximated, rows: Tensor, weights: Tensor
) -> Tensor:
    """Probabilities to be changed, given the data, shape ``(changed,)``."""
    before, after = written.masses[rows], changed.masses
    either = torch.logaddexp(torch.log1p(-weights) + before, weights.log() + after)
    case = either.sum(1).softmax(0)
    return (case.unsqueeze(1) * torch.exp(weights.log() + after - either)).sum(0)


def _responsible(
    written: Approximated, changed: Approximated, rows: Tensor, weights: Tensor
) -> Tensor:
    """What the changed individuals add to the score, with their probabilities to be changed."""
    probability = _probability(written, changed, rows, weights)
    return (probability.unsqueeze(1) * (changed.scores - written.scores[rows])).sum(0)


def expected_gain(fit: PopulationFit, compared: Compared, index: int, weights: Tensor) -> float:
    """As :func:`at_maximum`, to second order."""
    known, rows = fit.estimated, compared.alternatives[index].rows
    written, changed = compared.written, compared.changed[index]
    score = _responsible(written, changed, rows, weights)
    move = float(score @ fit.covariance[known][:, known] @ score)
    here = _log_ratio(written.masses, changed.masses, rows, weights) - float(written.masses.sum())
    if here < DEFAULTS.lowest:
        return here
    return here + 0.5 * min(max(move, 0.0), DEFAULTS.max_move**2)
