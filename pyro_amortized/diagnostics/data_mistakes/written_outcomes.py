r"""Mistakes in the outcomes, undone: codes, signs, units and logarithms of what was measured.

Yes and no of a site are exchanged, a scale of categories is numbered in the other direction, a
change has the wrong sign, values or times of events are in another unit, values are logarithms,
last values are copies of the one before. The values themselves are then others, so their density
changes by the volume: where :math:`h(y)` should have been written in place of y, the density of y
is :math:`|h'(y)|\,p(h(y))`, which is why an alternative has a ``log_volume``.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort, Series
from ...model import OutcomeKind
from .written_alternatives import Alternative, changed_part


@dataclass(frozen=True)
class OutcomeAlternativeSettings:
    r"""Which mistakes are tried.

    Args:
        value_factors: Factors by which all values of a series may be too large, or too small, and
            their names.
        time_factors: The same of the times of events, and of the times of values.
        logarithms: Bases of logarithms that may be written in place of values, what was added to
            the values before, and their names.
        max_logarithm: Largest natural logarithm: no measured value is twenty orders of magnitude
            larger than its unit.
        max_categories: Most categories whose order may be the other one.
        beyond: Factor by which the last time of an individual may lie beyond those of the others,
            a property of the design.
    """

    value_factors: tuple[tuple[float, str], ...] = (
        (2.2046, "pounds in place of kilograms"),
        (2.54, "centimetres in place of inches"),
        (10.0, "a decimal place"),
        (18.02, "milligrams per decilitre in place of millimoles per litre"),
        (88.4, "micromoles per litre in place of milligrams per decilitre"),
        (1000.0, "a prefix of the unit"),
    )
    time_factors: tuple[tuple[float, str], ...] = (
        (7.0, "days in place of weeks"),
        (12.0, "months in place of years"),
        (24.0, "hours in place of days"),
        (30.44, "days in place of months"),
        (60.0, "minutes in place of hours"),
        (365.25, "days in place of years"),
    )
    logarithms: tuple[tuple[float, float, str], ...] = (
        (math.e, 0.0, "natural logarithms"),
        (10.0, 0.0, "decimal logarithms"),
        (math.e, 1.0, "natural logarithms of one plus the value"),
    )
    max_logarithm: float = 20 * math.log(10)
    max_categories: int = 20
    beyond: float = 1.1


OUTCOMES = OutcomeAlternativeSettings()


class _Factor(NamedTuple):
    """A factor between two units, and its words."""

    value: float
    side: str
    words: str


def outcome_alternatives(cohort: Cohort, kinds: Mapping[str, OutcomeKind]) -> Iterator[Alternative]:
    """All alternatives to what is written about the outcomes.

    Args:
        cohort: The data.
        kinds: The kind of the values of every series.
    """
    for name, kind in kinds.items():
        series = cohort[name]
        if kind == "event":
            yield from _event_units(cohort, name)
        elif series.values.dim() != 2 or bool((series.values != series.values).any()):
            continue
        elif kind in ("category", "count"):
            yield from _filled_forward(cohort, name, is_count=kind == "count")
            yield from _other_codes(cohort, name) if kind == "category" else ()
        elif kind == "continuous" and not _has_limits(cohort, name):
            yield from _other_values(cohort, name)
            yield from _logarithms(cohort, name)
    yield from _other_unit_of_times(cohort, kinds)


def _has_limits(cohort: Cohort, name: str) -> bool:
    return any(f"{name}_{side}" in cohort.time_varying for side in ("low", "high"))


def _with_values(cohort: Cohort, name: str, rows: Tensor, values: Tensor) -> Cohort:
    own = dict(cohort[rows].series.items())
    own[name] = replace(own[name], values=values)
    return changed_part(cohort, rows, series=own)


def _factors(factors: tuple[tuple[float, str], ...]) -> Iterator[_Factor]:
    """Both directions of each factor."""
    for (factor, words), power in itertools.product(factors, (-1, 1)):
        side = f"{factor:g} times too {'large' if power < 0 else 'small'}"
        yield _Factor(factor**power, side, words)


def _other_codes(cohort: Cohort, name: str) -> Iterator[Alternative]:
    """Yes and no exchanged, or the categories in the other direction."""
    series = cohort[name]
    known = series.values[series.observed]
    if not len(known):
        return
    low, high = float(known.min()), float(known.max())
    if low == high or high - low >= OUTCOMES.max_categories:
        return
    rows = series.observed.any(1).nonzero()[:, 0]
    values = torch.where(series.observed, low + high - series.values, series.values)[rows]
    text = f"the codes {low:g} and {high:g} of {name!r} are exchanged"
    if high - low > 1:
        text = f"the categories of {name!r} are numbered in the other direction"
    changed = _with_values(cohort, name, rows, values)
    yield Alternative(f"the codes of {name}", text, rows, changed, may_be_effect=True)


def _filled_forward(cohort: Cohort, name: str, *, is_count: bool) -> Iterator[Alternative]:
    """The last values of an individual, which are all equal, are copies of the first of them; zeros
    of counts have words of their own.

    Any visit may be the last real one, so the likelihood of the copies is that of the values before
    divided by the number of visits. An individual whose last two values differ stays, with a volume
    of minus infinity: which individuals there are must not depend on the outcome.
    """
    series = cohort[name]
    rows = (series.observed.sum(1) > 2).nonzero()[:, 0]
    if not len(rows):
        return
    values, observed = series.values[rows], series.observed[rows]
    width = values.shape[1]
    place = torch.where(observed, torch.arange(width), -1)
    last = values.gather(1, place.argmax(1, keepdim=True))
    other = torch.where(observed & (values != last), torch.arange(width), -1).amax(1, keepdim=True)
    after = observed & (place > other)  # the equal values at the end, the first of them is real
    copied = after & (after.cumsum(1) > 1)
    is_possible = copied.any(1) & (after.sum(1) < observed.sum(1))
    is_zero = (last[:, 0] == 0) & is_count
    copies = f"the last values of {name!r} are copies of the one before (carried forward?)"
    zeros = (
        f"the last values of {name!r} are zero, whatever those before say (missing values as zero, "
        "or an end of all events?)"
    )
    for text, has_kind in ((copies, ~is_zero), (zeros, is_zero))[: 1 + is_count]:
        changes = is_possible & has_kind
        volume = -observed.sum(1).double().log()
        volume = volume.masked_fill(~changes, -torch.inf)
        own = dict(cohort[rows].series.items())
        kept = torch.where(changes[:, None], observed & ~copied, observed)
        own[name] = replace(own[name], observed=kept)
        changed = changed_part(cohort, rows, series=own)
        yield Alternative("copies", text, rows, changed, log_volume=volume, may_be_effect=True)


def _other_values(cohort: Cohort, name: str) -> Iterator[Alternative]:
    """Another sign of values of both signs; another unit of positive values, unless another unit
    of the doses says the same.
    """
    series, kind = cohort[name], f"the unit of {name}"
    known = series.values[series.observed]
    rows = series.observed.any(1).nonzero()[:, 0]
    if bool((known < 0).any()) and bool((known > 0).any()):
        text = f"the values of {name!r} have the wrong sign"
        changed = _with_values(cohort, name, rows, -series.values[rows])
        yield Alternative(f"the sign of {name}", text, rows, changed)
        return
    is_said = cohort.doses is not None and len(cohort.series) == 1
    if is_said or not bool((known > 0).all()):
        return
    number = series.observed.sum(1)[rows].double()
    for factor in _factors(OUTCOMES.value_factors):
        changed = _with_values(cohort, name, rows, series.values[rows] * factor.value)
        volume = number * torch.tensor(factor.value).double().log()
        text = f"the values of {name!r} are written {factor.side} ({factor.words}?)"
        yield Alternative(kind, text, rows, changed, log_volume=volume, may_be_effect=True)


def _logarithms(cohort: Cohort, name: str) -> Iterator[Alternative]:
    """Logarithms of the values of an individual in place of the values.

    An individual whose values cannot be logarithms stays, with a volume of zero: which individuals
    there are must not depend on the outcome.
    """
    series, kind = cohort[name], f"the logarithm of {name}"
    rows = series.observed.any(1).nonzero()[:, 0]
    observed = series.observed[rows]
    known = torch.where(observed, series.values[rows].double(), 0.0)
    for base, added, words in OUTCOMES.logarithms:
        log = known * math.log(base)
        is_possible = (log <= OUTCOMES.max_logarithm).all(1)
        if not bool(is_possible.any()):
            continue
        real = log.clamp(max=OUTCOMES.max_logarithm).exp() - added
        values = torch.where(observed, real.to(series.values), series.values[rows])
        slopes = torch.where(observed, log + math.log(math.log(base)), 0.0)
        volume = slopes.sum(1).masked_fill(~is_possible, -torch.inf)
        changed = _with_values(cohort, name, rows, values)
        text = f"the values of {name!r} are {words}"
        yield Alternative(kind, text, rows, changed, log_volume=volume, may_be_effect=True)


def _event_units(cohort: Cohort, name: str) -> Iterator[Alternative]:
    """Times of events, and of the ends of observation, in another unit.

    All individuals are changed, also those whose time would lie far beyond the others: which
    alternatives there are must not depend on the outcome, or their ratios have no mean of one.
    """
    series = cohort[name]
    times, status = series.values.unbind(-1)
    known = series.observed.all(-1)
    number = (known & (status > 0)).sum(1).double()
    rows = known.any(1).nonzero()[:, 0]
    for factor in _factors(OUTCOMES.time_factors):
        values = torch.stack([times * factor.value, status], -1)[rows]
        text = f"the times of {name!r} are written {factor.side} ({factor.words}?)"
        volume = number[rows] * torch.tensor(factor.value).double().log()
        changed = _with_values(cohort, name, rows, values)
        kind = f"the times of {name}"
        yield Alternative(kind, text, rows, changed, log_volume=volume, may_be_effect=True)


def _near(new: Tensor, old: Tensor) -> Tensor:
    """Whether last times lie where those of the other individuals do."""
    return (new <= OUTCOMES.beyond * old.max()) & (new >= old.min() / OUTCOMES.beyond)


def _other_unit_of_times(cohort: Cohort, kinds: Mapping[str, OutcomeKind]) -> Iterator[Alternative]:
    """Times of all values of one channel in another unit; those of the doses stay."""
    names = [n for n in kinds if kinds[n] != "event" and cohort[n].values.dim() == 2]
    if not names:
        return
    observed = torch.cat([cohort[n].observed for n in names], 1)
    times = torch.cat([cohort[n].times for n in names], 1)
    last = torch.where(observed, times, 0.0).amax(1)
    for factor in _factors(OUTCOMES.time_factors):
        is_other = (last > 0) & _near(last * factor.value, last)
        rows = is_other.nonzero()[:, 0]
        if not len(rows) or len(rows) == len(cohort):
            continue
        own = dict(cohort[rows].series.items())
        for n in names:
            own[n] = Series(own[n].times * factor.value, own[n].values, own[n].observed)
        text = f"its times are written {factor.side} ({factor.words}?)"
        yield Alternative("the unit of times", text, rows, changed_part(cohort, rows, series=own))
