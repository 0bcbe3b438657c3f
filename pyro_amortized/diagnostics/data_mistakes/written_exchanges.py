r"""Exchanges, undone: values of an individual, and covariates, doses or values of two individuals.

Two samples of an individual were exchanged, or all of them are in reverse order; covariates or
doses belong to another individual; all values of two neighbours in the file, those from a visit on
or those of one visit were exchanged, because a mark was lost or tubes were mixed up. Of this kind
many pairs may be exchanged in one study
(:mod:`~pyro_amortized.diagnostics.data_mistakes.written_data`).
"""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...cohort import Cohort
from .written_alternatives import (
    NEIGHBOURS,
    ROWS,
    SAMPLES,
    Alternative,
    changed_part,
    series_of_values,
    with_covariates,
)


@dataclass(frozen=True)
class ExchangeSettings:
    r"""Which exchanges are tried.

    Args:
        max_exchanged: Most individuals of which all pairs are exchanged: 60 have 1,770 pairs.
        max_samples: Most values of an individual of which all pairs are exchanged.
        max_visits: Most values of an individual after each of which those of neighbours are.
        max_neighbours: Most individuals whose values are exchanged with those of neighbours: with
            150 and ten values there are 6,000 changed individuals, a second in closed form.
    """

    max_exchanged: int = 60
    max_samples: int = 12
    max_visits: int = 24
    max_neighbours: int = 150


EXCHANGES = ExchangeSettings()


def written_exchanges(
    cohort: Cohort, used: Sequence[str], series: Collection[str]
) -> Iterator[Alternative]:
    """All exchanges.

    Args:
        cohort: The data.
        used: Names of the covariates that the density depends on.
        series: Names of the series of which two values of an individual may be exchanged.
    """
    yield from _exchanged_samples(cohort, series)
    for name in series_of_values(cohort):
        yield from _exchanged_neighbours(cohort, name)
    if len(cohort) <= EXCHANGES.max_exchanged:
        yield from _exchanged_individuals(cohort, used)
    yield from _other_rows(cohort, used)


def _exchanged_samples(cohort: Cohort, names: Collection[str]) -> Iterator[Alternative]:
    """Two values of an individual exchanged, and all of them in reverse order."""
    for name in set(series_of_values(cohort)) & set(names):
        series = cohort[name]
        num = series.values.shape[1]
        if num < 3 or num > EXCHANGES.max_samples:
            continue
        all_of = series.observed.all(1)
        if bool(all_of.any()):
            rows = all_of.nonzero()[:, 0]
            text = f"the values of {name!r} are in reverse order"
            yield _reordered(cohort, name, rows, list(range(num))[::-1], text, "order")
        for j, k in itertools.combinations(range(num), 2):
            both = series.observed[:, j] & series.observed[:, k]
            both &= series.values[:, j] != series.values[:, k]
            rows, order = both.nonzero()[:, 0], list(range(num))
            order[j], order[k] = k, j
            if len(rows):
                text = f"the values {j + 1} and {k + 1} of {name!r} are exchanged"
                yield _reordered(cohort, name, rows, order, text, SAMPLES)


def _reordered(
    cohort: Cohort, name: str, rows: Tensor, order: list[int], text: str, kind: str
) -> Alternative:
    own = cohort[rows]
    series = dict(own.series.items())
    series[name] = replace(series[name], values=series[name].values[:, order])
    return Alternative(kind, text, rows, changed_part(cohort, rows, series=series))


def _exchanged_individuals(cohort: Cohort, used: Sequence[str]) -> Iterator[Alternative]:
    """Covariates, or doses, of two individuals exchanged."""
    num = len(cohort)
    first, second = (~torch.eye(num, dtype=torch.bool)).nonzero().unbind(1)
    covariates = {n: x[second] for n, x in cohort.covariates.items() if n in used}
    if covariates:
        changed = with_covariates(cohort, first, covariates)
        text = "the covariates of {} and {} are exchanged"
        yield Alternative("exchanged covariates", text, first, changed, second)
    if cohort.doses is not None:
        others = cohort[second].doses
        changed = changed_part(cohort, first, doses=others)
        text = "the doses of {} and {} are exchanged"
        yield Alternative("exchanged doses", text, first, changed, second)


def _other_rows(cohort: Cohort, used: Sequence[str]) -> Iterator[Alternative]:
    """Covariates, or doses, that stand one row too high or too low in the file."""
    every = torch.arange(len(cohort))
    for shift, side in ((-1, "above"), (1, "below")):
        rows = every.roll(shift)
        covariates = {n: cohort.covariates[n][rows] for n in used}
        if covariates:
            changed = with_covariates(cohort, every, covariates)
            text = f"its covariates stand in the row {side}, of another individual"
            yield Alternative(ROWS, text, every, changed)
        if cohort.doses is not None:
            changed = changed_part(cohort, every, doses=cohort[rows].doses)
            text = f"its doses stand in the row {side}, of another individual"
            yield Alternative(ROWS, text, every, changed)


def _exchanged_neighbours(cohort: Cohort, name: str) -> Iterator[Alternative]:
    """Values of two neighbours in the file exchanged, from one visit on or at one visit, where both
    have the same recorded ones.
    """
    series, num = cohort[name], len(cohort)
    width = series.values.shape[1]
    if width > EXCHANGES.max_visits or not 2 <= num <= EXCHANGES.max_neighbours:
        return
    first = torch.arange(num - 1)
    rows, partners = torch.cat([first, first + 1]), torch.cat([first + 1, first])
    places = [("exchanged", slice(0, None))]
    places += [(f"exchanged from value {k + 1} on", slice(k, None)) for k in range(1, width)]
    places += [(f"exchanged at value {k + 1}", slice(k, k + 1)) for k in range(width - 1)]
    for what, part in places:
        values, observed = series.values[rows].clone(), series.observed[rows].clone()
        values[:, part] = series.values[partners][:, part]
        observed[:, part] = series.observed[partners][:, part]
        is_same = (observed == series.observed[rows]).all(1) & series.observed[rows].any(1)
        if not bool(is_same.any()):
            continue
        own = dict(cohort[rows[is_same]].series.items())
        own[name] = replace(own[name], values=values[is_same])
        text = f"the values of {name!r} of {{}} and {{}} are {what}"
        changed = changed_part(cohort, rows[is_same], series=own)
        yield Alternative(NEIGHBOURS, text, rows[is_same], changed, partners[is_same])


def likely_pairs(gain: Tensor, shares: Sequence[float]) -> tuple[Tensor, float]:
    """The most likely set of pairs of neighbours that were exchanged.

    A set is drawn along the file: each individual, unless it was exchanged with the one before, is
    exchanged with the next one with a probability, one of the shares.

    Args:
        gain: Log likelihood ratio of each individual exchanged with the next one, shape
            ``(individual,)``; minus infinity where that is not possible.
        shares: Probabilities, each as likely as the others.

    Returns:
        The first individual of every pair, and the logarithm of the prior probability of the set.

    Example:
        >>> likely_pairs(torch.tensor([9.0, -2.0, 8.0, -torch.inf]), (0.4,))[0]
        tensor([0, 2])
    """
    best: tuple[float, list[int], float] = (-math.inf, [], 0.0)
    for share in shares:
        stay, move = math.log1p(-share), math.log(share)
        # Values of the best sets from an individual on: Viterbi's recursion.
        values, moves = [0.0, 0.0], [False] * len(gain)
        for i in reversed(range(len(gain))):
            last = i == len(gain) - 1
            alone = (0.0 if last else stay) + values[0]
            pair = -math.inf if last else move + float(gain[i]) + values[1]
            moves[i] = pair > alone
            values = [max(pair, alone), values[0]]
        chosen, i, log_prior = [], 0, 0.0
        while i < len(gain) - 1:
            log_prior += move if moves[i] else stay
            chosen += [i] if moves[i] else []
            i += 2 if moves[i] else 1
        if values[0] > best[0]:
            best = (values[0], chosen, log_prior)
    return torch.tensor(best[1], dtype=torch.long), best[2] - math.log(len(shares))
