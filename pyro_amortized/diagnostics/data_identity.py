"""Individuals that occur twice, values that several individuals share, and constant series.

Such data are possible, but rarely meant: a file that was joined twice, samples that were mixed up,
a column that was filled down. Nothing is simulated.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.stats

from ..cohort import Cohort
from .check_results import Check


@dataclass(frozen=True)
class IdentitySettings:
    r"""What is named.

    Args:
        min_values: Fewest recorded values of a series that are compared or called constant.
        min_digits: Significant digits of a value that two individuals rarely share by chance.
        min_shared: Fewest values with so many digits that two individuals share.
        max_chance: Probability, for all pairs together, that as many values agree by chance, from
            which they are not named. Two individuals of theophylline share 4.57, 6.59 and 1.25.
        window: Distance of values that could have agreed, in standard deviations of all values.
        max_named: Most findings that are named.
    """

    min_values: int = 3
    min_digits: int = 3
    min_shared: int = 3
    max_chance: float = 1e-3
    window: float = 0.2
    max_named: int = 5


DEFAULTS = IdentitySettings()


def identity_checks(cohort: Cohort, series: Collection[str] | None = None) -> list[Check]:
    """One check of the identity of individuals and values, of all series or of some: equal counts
    and categories are no sign of a mistake.
    """
    names = [n for n in cohort.series if series is None or n in series]
    findings = [x for name in names for x in _findings(cohort, name)]
    name = "identity of individuals and values"
    if not findings:
        words = "No individual and no series of values occurs twice."
        return [Check(name, "passed", 0, words, "model")]
    more = "; ..." if len(findings) > DEFAULTS.max_named else ""
    words = f"{'; '.join(findings[: DEFAULTS.max_named])}{more}. Look at the file."
    return [Check(name, "look", len(findings), words, "model")]


def _findings(cohort: Cohort, name: str) -> Iterator[str]:
    """What is found in one series of one channel."""
    series = cohort[name]
    if series.values.dim() != 2:
        return
    values = [
        [float(v) for v in row[observed]]
        for row, observed in zip(series.values.double(), series.observed, strict=True)
    ]
    times = [
        tuple(row[observed].tolist())
        for row, observed in zip(series.times.double(), series.observed, strict=True)
    ]
    yield from _duplicates(cohort.ids, values, times, name)
    yield from _shared(cohort.ids, values, name)
    yield from _constant(cohort, values, name)
    yield from _repeated_times(cohort.ids, values, times, name)


def _duplicates(
    ids: tuple[str, ...], values: list[list[float]], times: list[tuple[float, ...]], name: str
) -> Iterator[str]:
    same: dict[object, list[str]] = defaultdict(list)
    for label, row, at in zip(ids, values, times, strict=True):
        if len(row) >= DEFAULTS.min_values and len(set(row)) > 1:
            same[(tuple(row), at)].append(label)
    for labels in same.values():
        if len(labels) > 1:
            yield f"individuals {', '.join(labels)} have the same times and values of {name!r}"


def _shared(ids: tuple[str, ...], values: list[list[float]], name: str) -> Iterator[str]:
    """Pairs of individuals, not duplicates, that share values with several digits."""
    owners: dict[float, set[int]] = defaultdict(set)
    for i, row in enumerate(values):
        for value in row:
            if _num_digits(value) >= DEFAULTS.min_digits:
                owners[value].add(i)
    pairs: Counter[tuple[int, int]] = Counter()
    for rows in owners.values():
        if len(rows) == 2:  # values that many share are limits or rounded
            pairs[min(rows), max(rows)] += 1
    every = np.array([v for row in values for v in row])
    num_pairs = max(1, len(values) * (len(values) - 1) // 2)
    for (i, j), number in pairs.items():
        if number < DEFAULTS.min_shared or values[i] == values[j]:
            continue
        expected = _expected_agreements(np.array(values[i]), np.array(values[j]), every)
        if num_pairs * scipy.stats.poisson.sf(number - 1, expected) < DEFAULTS.max_chance:
            yield f"individuals {ids[i]} and {ids[j]} share {number} values of {name!r}"


def _expected_agreements(first: np.ndarray, second: np.ndarray, every: np.ndarray) -> float:
    """Number of values of two individuals that agree by chance: of two values in the same
    neighbourhood, one of as many as there are numbers of their precision in it.
    """
    unit = 10.0 ** -max(_num_decimals(float(v)) for v in every)
    window = max(DEFAULTS.window * float(every.std()), unit)
    distance = np.abs(first[:, None] - second)
    near = (distance <= window) & (distance > unit / 2)  # equal ones are what is tested
    return float(near.sum()) / (2 * window / unit)


def _constant(cohort: Cohort, values: list[list[float]], name: str) -> Iterator[str]:
    """Individuals with a constant series, unless most have one (counts, limits, scores)."""
    long = [i for i, row in enumerate(values) if len(row) >= DEFAULTS.min_values]
    constant = [i for i in long if len(set(values[i])) == 1]
    if constant and 2 * len(constant) < len(long) and not _is_whole(values):
        labels = ", ".join(cohort.ids[i] for i in constant[: DEFAULTS.max_named])
        yield f"all values of {name!r} are the same for {labels}"


def _repeated_times(
    ids: tuple[str, ...], values: list[list[float]], times: list[tuple[float, ...]], name: str
) -> Iterator[str]:
    repeated = [
        label
        for label, row, at in zip(ids, values, times, strict=True)
        if max(Counter(zip(at, row, strict=True)).values(), default=0) > 1
    ]
    if repeated:
        labels = ", ".join(repeated[: DEFAULTS.max_named])
        yield f"a value of {name!r} is recorded twice at one time for {labels}"


def _is_whole(values: list[list[float]]) -> bool:
    """Whether all values are whole numbers: counts and scores repeat by chance."""
    return all(v == round(v) for row in values for v in row)


def _num_decimals(value: float) -> int:
    """Number of decimals of a value as it was probably written."""
    mantissa, _, exponent = f"{value:.6g}".partition("e")
    return max(0, len(mantissa.partition(".")[2]) - int(exponent or 0))


def _num_digits(value: float) -> int:
    """Number of significant digits of a value as it was probably written."""
    if value == 0 or not math.isfinite(value):
        return 0
    text = f"{abs(value):.6g}".split("e")[0].replace(".", "").lstrip("0")
    return len(text.rstrip("0"))
