"""Individuals that occur twice, values that several individuals share, constant series, and
covariates that were filled in.

Such data are possible, but rarely meant: a file that was joined twice, samples that were mixed up,
a column that was filled down. Nothing is simulated.

References:
    Anderson (1955), The integral of a symmetric unimodal function over a symmetric convex set,
    Proceedings of the American Mathematical Society 6.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from ...cohort import Cohort
from ...runtime.short_lists import first_few
from ..check_results import Check
from ..variables.compared_variables import Variable
from .covariate_units import covariate_units
from .default_covariates import default_covariates


@dataclass(frozen=True)
class IdentitySettings:
    r"""What is named.

    Args:
        min_values: Fewest recorded values of a series that are compared or called constant.
        min_digits: Significant digits of a value that two individuals rarely share by chance.
        min_shared: Fewest values with so many digits that two individuals share.
        max_chance: Probability, for all pairs together, that as many values agree by chance, from
            which they are not named. Two individuals of theophylline share 4.57, 6.59 and 1.25.
            The same of a covariate that lies far from those of the others.
        window: Distance of values that could have agreed, in standard deviations of all values.
        min_near: Fewest values at the same times of two individuals that are nearly equal.
        max_compared: Most individuals of which all pairs are compared, which takes a second.
        min_filled: Fewest individuals with the same value of a covariate that was filled in ...
        share_filled: ... and their smallest share.
        share_different: Share of different values among the other individuals from which an equal
            value is no sign of rounding.
        codes: Numbers that often stand for an unknown value.
        min_others: Fewest different values of the other individuals.
        max_beyond: Distance of such a number from the range of the other individuals, as a part of
            this range, from which it is named.
        min_gap: The same distance for a number that is zero or negative where all others are
            positive.
        max_share: Largest share of the individuals that have such a number.
        max_factor: Factor from the largest or the smallest of the others, from which any other
            number is named.
        max_coded: Probability, for all groups together, that a group and the others lack a level of
            each other by chance, from which levels that are those of the others plus a number are
            not named.
        max_named: Most findings that are named.
    """

    min_values: int = 3
    min_digits: int = 3
    min_shared: int = 3
    max_chance: float = 1e-3
    window: float = 0.2
    min_near: int = 4
    max_compared: int = 1000
    min_filled: int = 5
    share_filled: float = 0.1
    share_different: float = 0.8
    codes: tuple[float, ...] = (0, -1, -9, -99, -999, -9999, 99, 999, 9999, 99999)
    min_others: int = 6
    max_beyond: float = 1.0
    min_gap: float = 0.2
    max_share: float = 0.2
    max_factor: float = 5.0
    max_coded: float = 0.01
    max_named: int = 5


DEFAULTS = IdentitySettings()


def identity_checks(
    cohort: Cohort,
    series: Collection[str] | None = None,
    error_sds: Mapping[str, Tensor] | None = None,
) -> list[Check]:
    """One check of the identity of individuals and values.

    Args:
        cohort: The data.
        series: Names of the series that are looked at: equal counts and categories are no sign of a
            mistake. Default: all.
        error_sds: Standard deviations of the errors of series, shape ``(individual, time)``, NaN
            where they are not known: nearly equal individuals are named, too. Default: not known.
    """
    names = [n for n in cohort.series if series is None or n in series]
    findings = [x for name in names for x in _findings(cohort, name)]
    for name, sds in (error_sds or {}).items():
        findings += _near_copies(cohort, name, sds)
    findings += [*_filled_covariates(cohort), *_unknown_covariates(cohort)]
    findings += [*_other_codes(cohort), *default_covariates(cohort), *covariate_units(cohort)]
    name = "identity of individuals and values"
    if not findings:
        words = (
            "No individual and no series of values occurs twice, and no covariate was filled in or "
            "stands far outside."
        )
        return [Check(name, "passed", 0, words, "model")]
    words = f"{first_few(findings, DEFAULTS.max_named, '; ')}. Look at the file."
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


def _near_copies(cohort: Cohort, name: str, sds: Tensor) -> Iterator[str]:
    """Pairs of individuals whose values differ less than errors of measurement let them.

    For any two means the sum of the squared differences, in units of their errors, is
    stochastically larger than a chi-squared variable (Anderson 1955).
    """
    series = cohort[name]
    if series.values.dim() != 2 or len(cohort) > DEFAULTS.max_compared:
        return
    values, times = series.values.double(), series.times.double()
    known = series.observed & sds.isfinite() & (sds > 0)
    written = [float(v) for v in values[known]]
    unit = 10.0 ** -max((_num_decimals(v) for v in written), default=0)
    num_pairs = len(cohort) * (len(cohort) - 1) / 2
    for i in range(len(cohort) - 1):
        same = known[i] & known[i + 1 :] & (times[i] == times[i + 1 :])
        difference = (values[i] - values[i + 1 :]).abs()
        is_copy = ~((difference > 0) & same).any(1)  # exact ones are named above
        scaled = (difference + unit).square() / (sds[i].square() + sds[i + 1 :].square())
        statistic = torch.where(same, scaled, 0.0).sum(1)
        chance = num_pairs * scipy.stats.chi2.cdf(statistic.numpy(), same.sum(1).clamp(min=1))
        near = torch.as_tensor(chance < DEFAULTS.max_chance) & ~is_copy
        near &= same.sum(1) >= DEFAULTS.min_near
        for k in near.nonzero()[:, 0].tolist():
            pair = f"{cohort.ids[i]} and {cohort.ids[i + 1 + k]}"
            yield f"the values of {name!r} of {pair} differ less than their errors allow"


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


def _filled_covariates(cohort: Cohort) -> Iterator[str]:
    """Covariates that have one value in many individuals and a different one in each of the others:
    a missing value was replaced by a mean or by a typical value. The smallest or largest value of
    all is none: it is a limit of what the laboratory reports.
    """
    for name, covariate in cohort.covariates.items():
        values = [float(v) for v in covariate.double() if math.isfinite(v)]
        if name in cohort.categories or not values:
            continue
        value, number = Counter(values).most_common(1)[0]
        others = [v for v in values if v != value]
        is_common = number >= max(DEFAULTS.min_filled, DEFAULTS.share_filled * len(values))
        different = len(set(others)) >= DEFAULTS.share_different * len(others)
        is_inside = bool(others) and min(others) < value < max(others)
        if is_common and is_inside and len(others) >= DEFAULTS.min_filled and different:
            yield (
                f"the covariate {name!r} is {value:g} in {number} of {len(values)} individuals and "
                "different in nearly all others: it may have been filled in"
            )


def _is_beyond(value: float, others: Tensor) -> bool:
    """Whether a value lies beyond others that are normal, by a t test with Bonferroni's factor: of
    few individuals, the range says little.
    """
    num = len(others)
    unit = float(others.std()) * (1 + 1 / num) ** 0.5
    distance = abs(value - float(others.mean())) / max(unit, 1e-300)
    return bool(2 * (num + 1) * scipy.stats.t.sf(distance, num - 1) < DEFAULTS.max_chance)


def _unknown_covariates(cohort: Cohort) -> Iterator[str]:
    """Covariates of few individuals far outside those of the others, as 999 for an unknown one."""
    for name, covariate in cohort.covariates.items():
        x = covariate.double()
        if name in cohort.categories or x.dim() != 1:
            continue
        different = x[x.isfinite()].unique().tolist()
        for value in sorted({*different[:1], *different[-1:], *DEFAULTS.codes} & set(different)):
            own, others = x == value, x[(x != value) & x.isfinite()]
            if len(others.unique()) < DEFAULTS.min_others or 2 * own.sum() > len(x):
                continue
            low, high = float(others.min()), float(others.max())
            beyond = max(low - value, value - high)
            is_code = value in DEFAULTS.codes and beyond > DEFAULTS.max_beyond * (high - low)
            few = own.sum() <= DEFAULTS.max_share * len(x)
            is_low = value <= 0 < low and few and beyond > DEFAULTS.min_gap * (high - low)
            is_code |= is_low and (value in DEFAULTS.codes or _is_beyond(value, others))
            factor = max(value / high, low / value) if low > 0 and value > 0 else 0.0
            # Covariates with long tails have a wide range of their own.
            is_far = factor > max(DEFAULTS.max_factor, high / low if low > 0 else 0.0)
            is_far = is_far and _is_beyond(math.log(value), others.log())
            if is_code or is_far:
                labels = [cohort.ids[i] for i in own.nonzero()[:, 0].tolist()]
                named = ", ".join(labels[: DEFAULTS.max_named])
                yield (
                    f"the covariate {name!r} is {value:g} for {named}, and {low:g} to {high:g} for "
                    "the others: a code for an unknown value, or another unit"
                )


def _other_codes(cohort: Cohort) -> Iterator[str]:
    """Covariates whose levels in a group are those of the others plus a number: 1 and 2 in place of
    0 and 1.
    """
    variables = [
        Variable(n, x.double().numpy()) for n, x in cohort.covariates.items() if x.dim() == 1
    ]
    pairs = list(itertools.permutations([v for v in variables if v.levels], 2))
    number = sum(len(group.levels) for _, group in pairs)
    for coded, group in pairs:
        for level in group.levels:
            inside = group.values == level
            own, others = (set(coded.values[x].tolist()) for x in (inside, ~inside))
            if len(own) < 2 or len(own) != len(others) or own == others or not own & others:
                continue
            moves = {round(a - b, 6) for a, b in zip(sorted(own), sorted(others), strict=True)}
            # Both parts must lack a level of the other one by chance.
            chance = _chance_without(coded.values, ~inside, others - own)
            chance *= _chance_without(coded.values, inside, own - others)
            if len(moves) == 1 and number * chance < DEFAULTS.max_coded:
                here, there = (
                    ", ".join(f"{x:g}" for x in sorted(levels)) for levels in (own, others)
                )
                yield (
                    f"the covariate {coded.name!r} has the values {here} where {group.name} is "
                    f"{level:g} and {there} elsewhere: it may be coded otherwise there"
                )


def _chance_without(values: np.ndarray, part: np.ndarray, levels: set[float]) -> float:
    """Probability that all individuals with some levels belong to a part, in a random order."""
    number = int(np.isin(values, list(levels)).sum())
    return float(scipy.stats.hypergeom.pmf(number, len(values), int(part.sum()), number))


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
