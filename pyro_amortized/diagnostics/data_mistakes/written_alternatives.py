r"""Mistakes of the file, undone: what the data would be if one of them had been made.

A mistake of one individual (its weight is in pounds, its dose a factor of ten too large, its last
dose was not taken, its clock one hour off) is an alternative to what is written; those of two
individuals are in :mod:`~pyro_amortized.diagnostics.data_mistakes.written_exchanges`. Each is a
cohort of the individuals that it changes. Numbers that no other individual has are no alternatives:
a weight that would be far below that of all others is none in pounds.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort, Doses, Series
from ..variables.compared_variables import Variable


@dataclass(frozen=True)
class AlternativeSettings:
    r"""Which mistakes are tried.

    Args:
        covariate_factors: Factors by which a covariate may be too large, or too small, and their
            names.
        dose_factors: The same of all doses of an individual.
        shifts: Shifts of the clock in the unit of the data, if it is the hour.
        beyond: Part of the range of a covariate, on the scale of logarithms, by which the
            alternative may lie beyond the other individuals.
    """

    covariate_factors: tuple[tuple[float, str], ...] = (
        (2.2046, "pounds in place of kilograms"),
        (2.54, "centimetres in place of inches"),
        (10.0, "a decimal place"),
        (12.0, "months in place of years"),
        (88.4, "micromoles per litre in place of milligrams per decilitre"),
        (100.0, "centimetres in place of metres"),
        (1000.0, "grams in place of kilograms"),
    )
    dose_factors: tuple[tuple[float, str], ...] = (
        (1.5, "another salt, formulation or body size"),
        (2.0, "twice the dose"),
        (10.0, "a decimal place"),
        (1000.0, "micrograms in place of milligrams"),
    )
    shifts: tuple[float, ...] = (1.0, 12.0)
    beyond: float = 0.1


ALTERNATIVES = AlternativeSettings()
# Kinds of alternatives for which the check has rules of its own.
LEVEL = "the level of "  # and the name of the covariate
COLUMNS = "columns"  # all individuals may share it
ROWS = "rows"  # the same; of one individual alone it is an exchange
SAMPLES = "samples"  # exchanges within an individual, which hardly move the population
NEIGHBOURS = "values of neighbours"  # many pairs may share it


class Alternative(NamedTuple):
    r"""One mistake undone in several individuals, each for itself, or in pairs of them.

    Args:
        kind: What was mistaken; alternatives of one kind are one family.
        words: The mistake in words, after "individual 3: ".
        rows: Individuals that it changes, shape ``(changed,)``.
        cohort: These individuals as they would have been written, likewise.
        partners: For an exchange, the individual that each was exchanged with; else None.
        may_be_effect: Whether an effect that the model lacks may look alike, so that another
            deviation from the model does not speak for the mistake.
        log_volume: Logarithm by which the density of the values as written is larger than that of
            the changed ones, because their unit is another one, shape ``(changed,)``; else None.
    """

    kind: str
    words: str
    rows: Tensor
    cohort: Cohort
    partners: Tensor | None = None
    log_volume: Tensor | None = None
    may_be_effect: bool = False

    @property
    def moves_population(self) -> bool:
        """Whether many individuals may share the mistake."""
        return self.partners is None and self.kind != SAMPLES


def written_alternatives(cohort: Cohort, used: Sequence[str]) -> Iterator[Alternative]:
    """All alternatives to covariates, doses and times as written, but for exchanges of individuals.

    Args:
        cohort: The data.
        used: Names of the covariates that the density depends on.
    """
    for name in used:
        yield from _other_levels(cohort, name)
        yield from _other_units(cohort, name)
        yield from _exchanged_columns(cohort, name)
    if cohort.doses is not None and cohort.doses.times.shape[1]:
        yield from _other_doses(cohort, cohort.doses)
        yield from _other_clock(cohort, cohort.doses)


def changed_part(cohort: Cohort, rows: Tensor, **parts: Any) -> Cohort:
    """Some individuals with other parts, and labels anew: one may occur several times."""
    return replace(cohort[rows], ids=(), **parts)


def with_covariates(cohort: Cohort, rows: Tensor, changed: dict[str, Tensor]) -> Cohort:
    """Some individuals of a cohort with other values of some covariates."""
    own = {name: x[rows] for name, x in cohort.covariates.items()}
    return changed_part(cohort, rows, covariates={**own, **changed})


def _is_quantity(cohort: Cohort, name: str) -> bool:
    x = cohort.covariates[name].double()
    is_plain = x.dim() == 1 and name not in cohort.categories
    return is_plain and not Variable(name, x.numpy()).levels and bool((x > 0).any())


def _plausible(new: Tensor, old: Tensor) -> Tensor:
    """Whether alternatives to a positive covariate lie where the other individuals do."""
    known = old[old.isfinite() & (old > 0)].log()
    room = ALTERNATIVES.beyond * float(known.max() - known.min())
    log = new.clamp(min=1e-300).log()
    return (log > known.min() - room) & (log < known.max() + room) & new.isfinite() & (new > 0)


def _other_units(cohort: Cohort, name: str) -> Iterator[Alternative]:
    if not _is_quantity(cohort, name):
        return
    x = cohort.covariates[name]
    for (factor, words), power in itertools.product(ALTERNATIVES.covariate_factors, (-1, 1)):
        new = x * factor**power
        rows = (_plausible(new.double(), x.double()) & (x > 0)).nonzero()[:, 0]
        if len(rows):
            side = "large" if power < 0 else "small"
            text = f"{name!r} is written {factor:g} times too {side} ({words}?)"
            changed = with_covariates(cohort, rows, {name: new[rows]})
            yield Alternative(f"the unit of {name}", text, rows, changed)


def _other_levels(cohort: Cohort, name: str) -> Iterator[Alternative]:
    """Another level of a variable with few levels."""
    x = cohort.covariates[name]
    if x.dim() != 1:
        return
    variable = Variable(name, x.double().numpy(), cohort.categories.get(name, ()))
    if len(variable.levels) == 2:
        rows = torch.isin(x.double(), torch.tensor(variable.levels).double()).nonzero()[:, 0]
        other = (sum(variable.levels) - x[rows]).to(x)
        changed = with_covariates(cohort, rows, {name: other})
        yield Alternative(LEVEL + name, f"{name!r} should be the other level", rows, changed)
        return
    for level in variable.levels:
        rows = (x != level).nonzero()[:, 0]
        changed = with_covariates(cohort, rows, {name: torch.full_like(x[rows], level)})
        text = f"{name!r} should be {variable.level_name(level)}"
        yield Alternative(LEVEL + name, text, rows, changed)


def _exchanged_columns(cohort: Cohort, name: str) -> Iterator[Alternative]:
    if not _is_quantity(cohort, name):
        return
    x = cohort.covariates[name]
    for other in cohort.covariates:
        if other == name or not _is_quantity(cohort, other):
            continue
        z = cohort.covariates[other]
        rows = ((z != x) & (z > 0) & (x > 0)).nonzero()[:, 0]
        changed = {name: z[rows].to(x), other: x[rows].to(z)}
        text = f"{name!r} and {other!r} are exchanged"
        yield Alternative(COLUMNS, text, rows, with_covariates(cohort, rows, changed))


def _other_doses(cohort: Cohort, doses: Doses) -> Iterator[Alternative]:
    rows = doses.given.any(1).nonzero()[:, 0]
    own = cohort[rows].doses
    if own is None or not len(rows):
        return
    for (factor, words), power in itertools.product(ALTERNATIVES.dose_factors, (-1, 1)):
        side, other = ("large", "small") if power < 0 else ("small", "large")
        text = (
            f"the doses are written {factor:g} times too {side}, or the values too {other} "
            f"({words}?)"
        )
        new = replace(own, amounts=own.amounts * factor**power, rates=own.rates * factor**power)
        if bool((own.rates < 0).any()):
            continue
        yield Alternative("doses", text, rows, changed_part(cohort, rows, doses=new))
    several = (own.given.sum(1) > 1).nonzero()[:, 0]
    order = torch.where(own.given, own.times, -torch.inf).argsort(1, descending=True)
    for number, text in (
        (1, "the last dose was not taken"),
        (2, "the last two doses were not taken"),
    ):
        enough = several[(own.given.sum(1) > number)[several]]
        given = own.given.clone().scatter(1, order[:, :number], False)
        if len(enough):
            part = rows[enough]
            fewer = replace(own.map(_taking(enough)), given=given[enough])
            changed = changed_part(cohort, part, doses=fewer)
            yield Alternative("doses", text, part, changed)


def _taking(rows: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x[rows]


def _moved_times(cohort: Cohort, rows: Tensor, times: dict[str, Tensor]) -> Cohort:
    own = cohort[rows]
    series = {
        n: Series(times[n], s.values, s.observed) if n in times else s
        for n, s in own.series.items()
    }
    return changed_part(cohort, rows, series=series)


def series_of_values(cohort: Cohort) -> list[str]:
    """Names of the series of one channel."""
    return [n for n, s in cohort.series.items() if s.values.dim() == 2]


def _first_and_last(doses: Doses) -> tuple[Tensor, Tensor]:
    """Times of the first and of the last dose of every individual; infinite where there is none."""
    first = torch.where(doses.given, doses.times, torch.inf).amin(1)
    return first, torch.where(doses.given, doses.times, -torch.inf).amax(1)


def _other_clock(cohort: Cohort, doses: Doses) -> Iterator[Alternative]:
    """Times of all values of one channel that are written too late or too early, or that count from
    the last dose in place of the first.
    """
    names = series_of_values(cohort)
    first, last = _first_and_last(doses)
    several = (last > first).nonzero()[:, 0]
    if len(several):
        text = "its times count from the last dose in place of the first"
        times = {n: (cohort[n].times + (last - first)[:, None])[several] for n in names}
        yield Alternative("times", text, several, _moved_times(cohort, several, times))
    for shift, sign in itertools.product(ALTERNATIVES.shifts, (1, -1)):
        # Times of what was not recorded stay in the range of the others, and in order.
        least = [float(cohort[n].times.min()) for n in names]
        least.append(float(torch.where(doses.given, doses.times, torch.inf).min()))
        moved = {n: cohort[n].times - sign * shift for n in names}
        recorded = [torch.where(cohort[n].observed, t, torch.inf).amin(1) for n, t in moved.items()]
        rows = [x >= first.to(x) for x in recorded]
        kept = torch.stack(rows).all(0).nonzero()[:, 0] if rows else torch.zeros(0).long()
        if len(kept):
            text = f"its times are written {shift:g} too {'late' if sign > 0 else 'early'}"
            times = {n: t[kept].clamp(min=min(least)) for n, t in moved.items()}
            yield Alternative("times", text, kept, _moved_times(cohort, kept, times))
