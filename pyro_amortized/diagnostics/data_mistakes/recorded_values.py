r"""Whether recorded values are measurements: limits written as values, values filled in, rounding.

- *One value that occurs again and again*, in several individuals: a limit of quantification that
  was written as a value (or half of it, or zero), or a value that was filled in. The number of its
  occurrences is compared with the number of values in its neighbourhood, spread over as many
  numbers of their precision as there are. Values at or before the first dose do not count: they may
  be zero.
- *A value that an individual repeats at its end*: the last one carried forward.
- *A value that is equal to the one before*, in several individuals: filled in for a missing one.
  Their number is compared with that of consecutive values that nearly agree.
- *Times of events*: one that occurs too often or is the end of the observation, and rounding, as of
  events that were noticed at visits.
- *Individuals whose values were rounded*: all are multiples of 5 or 10, say, where those of the
  others are not.
- *Rounding*: the smallest difference of two values, of which all others are multiples, beside the
  standard deviation of the errors. Rounding to a unit u adds :math:`u^2 / 12` to their variance.
"""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import scipy.stats

from ...cohort import Cohort
from ...runtime.short_lists import first_few
from ..check_results import Check
from ..events.event_residuals import EventResiduals
from ..measurements.residual_analysis import Residuals
from ..result_selection import rows_of


@dataclass(frozen=True)
class RecordedValueSettings:
    r"""What is named.

    Args:
        min_values: Fewest values of a series.
        min_times: Fewest occurrences of one value, and fewest individuals that have it.
        min_individuals: Fewest individuals that have it.
        max_chance: Probability, for all values together, of as many occurrences by chance.
        window: Neighbourhood of a value, in standard deviations of all values.
        min_repeated: Fewest equal values at the end of an individual's series.
        min_repeating: Fewest individuals that end so.
        max_unit: Unit of rounding, in standard deviations of the errors, from which it is named.
            One standard deviation makes that of the errors 4 % larger.
        multiple: Largest distance of a difference from a multiple of the unit, relative to it.
        share: Smallest share of the differences that are multiples.
        coarse: Units, times a power of ten below the standard deviation of the errors, to which the
            values of some individuals may have been rounded.
        max_digits: Most significant digits of values that were rounded to them.
        max_by_chance: Largest part of the values that are multiples of such a unit by chance.
        min_at_end: Fewest events at the very end of the observation.
        max_unit_of_times: Unit of rounding of the times of events, in their standard deviations,
            from which it is named: it makes that deviation 1 % larger, and all events of a visit
            look simultaneous.
        max_named: Most individuals that a finding names.
    """

    min_values: int = 20
    min_times: int = 4
    min_individuals: int = 3
    max_chance: float = 1e-4
    window: float = 0.2
    min_repeated: int = 3
    min_repeating: int = 2
    max_unit: float = 1.0
    multiple: float = 1e-3
    share: float = 0.99
    coarse: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
    max_digits: int = 3
    max_by_chance: float = 0.3
    min_at_end: int = 2
    max_unit_of_times: float = 0.5
    max_named: int = 5


DEFAULTS = RecordedValueSettings()
LIMIT = (
    "If it is a limit of quantification, say so in the data and the model (`nlme.Censored`, the "
    "page on missing data); if it was filled in, leave it out."
)
FORWARD = "Leave out values that were carried forward."
END = "Look whether the observation ended there without an event (status 0)."
VISITS = (
    "If events were noticed at visits, give the interval in which they happened "
    "(`nlme.interval_series`)."
)
ROUNDED = "Use `nlme.Rounded`, or values with more digits."


def recorded_value_checks(residuals: Residuals, cohort: Cohort) -> list[Check]:
    """The check of the values of one series; an empty list where there are too few.

    Args:
        residuals: Residuals of the series.
        cohort: The data of the fit.
    """
    doses = cohort.doses
    after = np.ones(len(residuals.ids), bool)
    if doses is not None and bool(doses.given.any()):
        after = residuals.times_after_dose.gt(0).numpy()
    used = ~residuals.censored.numpy() & after
    values = residuals.observed.double().numpy()[used]
    ids = np.array(residuals.ids)[used]
    if len(values) < DEFAULTS.min_values or len(np.unique(values)) < 2:
        return []
    unit = _unit(values)
    some = _rounded_individuals(values, ids, unit, residuals)
    parts = [
        some or _frequent_value(values, ids, unit),
        _carried_forward(values, ids, unit) or _repeated(values, ids, unit),
        _rounding(unit, residuals),
    ]
    words = "No value occurs suspiciously often, and rounding is finer than the errors."
    return [_check(f"recorded values of {residuals.series}", [x for x in parts if x], words)]


def recorded_event_checks(residuals: EventResiduals, cohort: Cohort) -> list[Check]:
    """The check of the times of one series of events; an empty list where there are few.

    Args:
        residuals: Residuals of the series.
        cohort: The data of the fit.
    """
    values = cohort[residuals.series].values.double()[:, 0].numpy()
    ends = cohort[residuals.series].times.double()[:, 0].numpy()
    own = rows_of(cohort, residuals.ids)
    # Events in an interval are known to be so.
    exact = (residuals.happened & (residuals.bounds[:, 0] == residuals.bounds[:, 1])).numpy()
    own = own[exact]
    times, ids = values[own, 0], np.array(residuals.ids)[exact]
    if len(times) < DEFAULTS.min_values or len(np.unique(times)) < 2:
        return []
    unit = _unit(times)
    at_end = np.isclose(times, ends[own], rtol=1e-9, atol=0.0)
    frequent = _frequent_value(times, ids, unit)
    found = [frequent] if frequent else []
    # Times that were rounded may be that of the end; others have a probability of zero.
    if at_end.sum() >= DEFAULTS.min_at_end and (unit == 0 or frequent):
        named = ", ".join(ids[at_end][: DEFAULTS.max_named].tolist())
        words = f"{at_end.sum()} events stand exactly at the end of the observation ({named})"
        found = [(words, END)]
    if unit >= DEFAULTS.max_unit_of_times * float(times.std()):
        words = f"times of events are multiples of {unit:.3g}, {len(np.unique(times))} different"
        found.append((words, VISITS))
    words = "No time occurs suspiciously often, and rounding is finer than their spread."
    return [_check(f"recorded times of {residuals.series}", found, words)]


def _check(name: str, found: list[tuple[str, str]], otherwise: str) -> Check:
    """The verdict on findings, each with what to do about it."""
    if not found:
        return Check(name, "passed", 0, otherwise, "model")
    words = f"{'; '.join(x for x, _ in found)}. {' '.join(x for _, x in found)}"
    return Check(name, "look", len(found), words, "model")


def _unit(values: np.ndarray) -> float:
    """The unit to which the values were rounded; zero where there is none."""
    different = np.unique(values)
    steps = np.diff(different)
    size = float(np.abs(values).max())
    steps = steps[steps > 1e-9 * size]
    if len(steps) == 0:
        return 0.0
    unit = float(steps.min())
    multiples = steps / unit
    near = np.abs(multiples - multiples.round()) < DEFAULTS.multiple * multiples
    return unit if near.mean() >= DEFAULTS.share and unit > 1e-6 * size else 0.0


def _unit_at(value: float, values: np.ndarray, unit: float) -> float:
    """The unit to which a value was rounded: that of all, or that of its significant digits, if all
    values have few.
    """
    nonzero = values[values != 0]
    power = np.floor(np.log10(np.abs(nonzero)))
    for digits in range(1, DEFAULTS.max_digits + 1):
        scaled = nonzero / 10 ** (power - digits + 1)
        if value != 0 and np.allclose(scaled, scaled.round(), rtol=0, atol=1e-6):
            return max(unit, float(10 ** (math.floor(math.log10(abs(value))) - digits + 1)))
    return unit


def _frequent_value(values: np.ndarray, ids: np.ndarray, unit: float) -> tuple[str, str] | None:
    """The value that occurs most often, if it occurs too often."""
    counts = Counter(values.tolist())
    value, number = counts.most_common(1)[0]
    owners = len(set(ids[values == value]))
    if number < DEFAULTS.min_times or owners < DEFAULTS.min_individuals:
        return None
    unit = _unit_at(value, values, unit)
    # At an end of the range the neighbourhood has one side, and the values themselves lie there.
    window = max(DEFAULTS.window * float(values.std()), 2 * unit)
    others = values[(np.abs(values - value) <= window) & (values != value)]
    expected = len(others) / max(2 * window / unit, 1.0) if unit > 0 else 0.0
    ends = value in (values.min(), values.max())
    expected = max(2.0 if ends else 1.0, 1.0) * expected + 1e-12
    chance = len(counts) * float(scipy.stats.poisson.sf(number - 1, expected))
    if chance >= DEFAULTS.max_chance:
        return None
    place = ""
    if ends:
        place = f", the {'smallest' if value == values.min() else 'largest'} of all"
    return f"the value {value:g}{place}, occurs {number} times in {owners} individuals", LIMIT


def _carried_forward(values: np.ndarray, ids: np.ndarray, unit: float) -> tuple[str, str] | None:
    """Individuals whose last values are equal, unless rounding makes equal values likely."""
    repeating = []
    for label in dict.fromkeys(ids.tolist()):
        own = values[ids == label][-DEFAULTS.min_repeated :]
        if len(own) == DEFAULTS.min_repeated and len(set(own.tolist())) == 1:
            repeating.append((label, float(own[0])))
    different = {value for _, value in repeating}
    likely = unit > 0 and len(np.unique(values)) < len(values) / 2
    if len(different) < DEFAULTS.min_repeating or likely:
        return None
    labels = first_few([label for label, _ in repeating], DEFAULTS.max_named)
    words = (
        f"{len(repeating)} individuals end with {DEFAULTS.min_repeated} equal values or more "
        f"({labels})"
    )
    return words, FORWARD


def _repeated(values: np.ndarray, ids: np.ndarray, unit: float) -> tuple[str, str] | None:
    """Values that are equal to the one before, if there are more than rounding explains."""
    same = ids[1:] == ids[:-1]
    step = np.abs(np.diff(values))
    owners = Counter(v for v, _ in set(zip(values.tolist(), ids.tolist(), strict=True)))
    rare = np.array([owners[v] < DEFAULTS.min_individuals for v in values[1:].tolist()])
    equal = same & (step == 0) & rare  # values that many share are limits
    individuals = len(set(ids[1:][equal]))
    if individuals < DEFAULTS.min_individuals:
        return None
    window = max(DEFAULTS.window * float(values.std()), 2 * unit)
    near = same & (step > 0) & (step <= window)
    # A step of zero has one neighbour on either side.
    units = [min(_unit_at(v, values, unit), window) for v in values[1:][near].tolist()]
    expected = sum(units) / window + 1e-12
    if scipy.stats.poisson.sf(int(equal.sum()) - 1, expected) >= DEFAULTS.max_chance:
        return None
    number = int(equal.sum())
    words = f"{number} values of {individuals} individuals repeat the one before (equal values)"
    return words, FORWARD


def _rounded_individuals(
    values: np.ndarray, ids: np.ndarray, unit: float, residuals: Residuals
) -> tuple[str, str] | None:
    """Individuals whose values are all multiples of a unit that is as coarse as the errors, while
    those of the others are finer.
    """
    sd = _error_sd(residuals)
    if not sd > 0:
        return None
    power = 10.0 ** math.floor(math.log10(sd))
    candidates = [x * power for x in DEFAULTS.coarse if x * power >= DEFAULTS.max_unit * sd]
    # Of continuous values, one in 1 / multiple counts as a multiple.
    found = []
    for coarse in candidates:
        near = np.abs(values / coarse - np.round(values / coarse)) < DEFAULTS.multiple
        by_chance = max(unit / coarse, 2 * DEFAULTS.multiple)
        if by_chance > DEFAULTS.max_by_chance:
            continue
        own, expected = [], 0.0
        for label in dict.fromkeys(ids.tolist()):
            mine = near[ids == label]
            expected += by_chance ** len(mine)
            if mine.all() and len(mine) >= DEFAULTS.min_repeated:
                own.append(label)
        chance = len(candidates) * float(scipy.stats.poisson.sf(len(own) - 1, expected))
        if len(own) >= DEFAULTS.min_individuals and chance < DEFAULTS.max_chance:
            found.append((coarse, own))
    if not found:
        return None
    coarse, own = found[-1]
    words = (
        f"all values of {len(own)} individuals ({first_few(own, DEFAULTS.max_named)}) are "
        f"multiples of {coarse:g}, {coarse / sd:.1f} standard deviations of the errors, and those "
        "of the others are finer"
    )
    return words, ROUNDED


def _error_sd(residuals: Residuals) -> float:
    """Median standard deviation of the errors; NaN where none is known."""
    errors = residuals.observed - residuals.individual
    sd = (errors / residuals.iwres).abs()
    sd = sd[sd.isfinite()]
    return float(sd.median()) if len(sd) else math.nan


def _rounding(unit: float, residuals: Residuals) -> tuple[str, str] | None:
    """Rounding that is as coarse as the errors."""
    sd = _error_sd(residuals)
    if unit == 0 or not unit >= DEFAULTS.max_unit * sd:
        return None
    return (
        f"values are rounded to {unit:.3g}, {unit / sd:.1f} standard deviations of the errors",
        ROUNDED,
    )
