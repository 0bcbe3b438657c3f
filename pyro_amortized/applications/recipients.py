r"""Who receives a regimen, and from when on: covariates, earlier doses and the clock.

A design for prediction needs times, doses, covariates and covariates that vary over time of N
individuals. :class:`Recipients` holds what does not depend on the regimen. The clock of seen
individuals goes on: times of a regimen are counted from ``start``, the time on the individual's own
clock at which it begins, so that covariates that vary over time and occasions keep their meaning.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from ..cohort import Cohort, Doses, Series
from ..cohort.copies import repeated_rows
from ..errors import CohortError, SettingError
from ..model.predictions import GRID
from ..nlme.regimens import Regimen
from ..nlme.studies import GivenCovariates, given_covariates
from ..runtime.arguments import check_number

Occasion = Literal["new", "last"]
Covariates = GivenCovariates | Cohort
OCCASION = "OCC"  # the name that `nlme.read_table` gives to occasions
LIMITS = ("low", "high", "floor")  # limits of quantification that `nlme.read_table` gives
# A regimen begins this part of its time (at least of one unit) after a sample of the same time, so
# that the sample is one before the dose.
AFTER_SAMPLE = 1e-9


@dataclass(frozen=True, eq=False)
class Recipients:
    r"""N individuals who receive a regimen.

    Args:
        series: Names of the series of the model, and the channels of each (0: no channels).
        covariates: Covariates, shape ``(individual,)`` each.
        time_varying: Covariates that vary over time, occasions, limits of quantification.
        ids: Labels; empty for copies, which have none.
        earlier: Doses that were given before and still act, or None.
        start: Time at which the regimen begins on the clock of each individual, shape
            ``(individual,)``.
        categories: Names of the categories of covariates, as in a cohort.
        events: Names of those series that are series of events.
        baseline: Series with one time, 0, by name: covariates that some individuals lack.
    """

    series: Mapping[str, int]
    covariates: Mapping[str, Tensor]
    time_varying: Mapping[str, Series]
    ids: tuple[str, ...]
    earlier: Doses | None
    start: Tensor
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    events: frozenset[str] = frozenset()
    baseline: Mapping[str, Series] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start)

    def repeat(self, num_copies: int) -> "Recipients":
        """The individuals ``num_copies`` times one after the other, without labels."""

        def copied(x: Tensor) -> Tensor:
            return repeated_rows(x, num_copies)

        return replace(
            self,
            covariates={name: copied(x) for name, x in self.covariates.items()},
            time_varying={name: s.map(copied) for name, s in self.time_varying.items()},
            ids=(),
            earlier=self.earlier and self.earlier.map(copied),
            start=copied(self.start),
            baseline={name: s.map(copied) for name, s in self.baseline.items()},
        )

    def after(self, plan: Regimen) -> "Recipients":
        """The individuals with a begin so much later that no steady state of a plan stands before
        it: models need no time before 0, and the first steady state ends the earlier doses.
        """
        first = min(plan.times)
        if first >= 0 or not plan.steady_state[0]:
            return self
        return replace(self, start=self.start - first)

    def cohort(self, times: Tensor, doses: Doses | None) -> Cohort:
        r"""The individuals with a regimen.

        Args:
            times: Times of prediction, counted from the begin of the regimen, shape ``(time,)``.
            doses: The doses of the regimen on the clocks of the individuals.
        """
        clock = self.start.unsqueeze(1) + times
        ones = torch.ones_like(clock)
        series = {
            name: Series(clock, ones.unsqueeze(-1).expand(-1, -1, k) if k else ones)
            for name, k in self.series.items()
            if name not in self.events and name not in self.baseline
        }
        if self.events:  # one event, until the last time; its times would not be those of a grid
            last, one = clock[:, -1:], torch.ones_like(clock[:, :1])
            followed = Series(last, torch.stack([last, 0 * one], -1))
            series |= dict.fromkeys(self.events, followed) | {GRID: Series(clock, ones)}
        series |= self.baseline
        limits = {f"{name}_{kind}" for name in self.series for kind in LIMITS}
        varying = {
            name: Series(clock, s.at(clock)) if name in limits else s
            for name, s in self.time_varying.items()
        }
        both = doses if self.earlier is None else _joined(self.earlier, doses)
        order = [*self.series, *(name for name in series if name not in self.series)]
        series = {name: series[name] for name in order}
        return Cohort(series, both, self.covariates, self.ids, varying, self.categories)


def _joined(earlier: Doses, later: Doses | None) -> Doses:
    """Two records of doses of the same individuals."""
    if later is None:
        return earlier
    columns = {name: torch.cat([x, getattr(later, name)], 1) for name, x in earlier.columns.items()}
    return Doses(**columns)


def new_recipients(
    series: Sequence[str],
    cohort: Cohort | None,
    covariates: Covariates | None,
    num_individuals: int,
    generator: Generator,
) -> Recipients:
    r"""New individuals, whose covariates are drawn from a cohort or given.

    Args:
        series: Names of the series of the model.
        cohort: The cohort of the population, or None.
        covariates: Covariates by name or in a data frame, for all or for each individual, or a
            cohort to draw from. Default: drawn from ``cohort``.
        num_individuals: Number of individuals.
        generator: Source of randomness.

    Raises:
        SettingError: A covariate has the wrong number of individuals.
    """
    template = covariates if isinstance(covariates, Cohort) else cohort
    known: dict[str, Tensor] = {}
    varying: Mapping[str, Series] = {}
    names: Mapping[str, tuple[str, ...]] = {}
    channels = {name: 0 for name in series}
    events, baseline = frozenset[str](), dict[str, Series]()
    if template is not None:
        rows = torch.arange(num_individuals)
        if len(template) != num_individuals or not isinstance(covariates, Cohort):
            rows = torch.randint(len(template), (num_individuals,), generator=generator)
        picked = template.to(dtype=torch.float64)[rows]
        known, varying = dict(picked.covariates), dict(picked.time_varying)
        names = picked.categories
        channels = {name: _channels(template, name) for name in series}
        # A design has plain series in the place of events.
        events = _events_of(picked, series) | _events_of(cohort, series)
        baseline = _baseline_of(picked, cohort, series)
    if covariates is not None and not isinstance(covariates, Cohort):
        known |= given_covariates(covariates, num_individuals, names)
    ids = tuple(str(i + 1) for i in range(num_individuals))
    start = torch.zeros(num_individuals, dtype=torch.float64)
    return Recipients(channels, known, varying, ids, None, start, names, events, baseline)


def _events_of(cohort: Cohort | None, names: Sequence[str]) -> frozenset[str]:
    """The series whose two channels are the time of an event and its status."""
    if cohort is None:
        return frozenset()
    return frozenset(name for name in names if name in cohort and _is_event(cohort[name]))


def _is_event(series: Series) -> bool:
    return series.has_statuses and bool((series.times == series.times[:, :1]).all())


def _baseline_of(
    cohort: Cohort, reference: Cohort | None, names: Sequence[str]
) -> dict[str, Series]:
    """The series that have one value, at the begin of each individual, in the data of the
    population: covariates that some individuals lack. They are not recorded where individuals have
    no such series.
    """
    if reference is None:
        return {}
    found = {}
    for name in names:
        known = reference.series.get(name)
        others = [s.times.amin(1) for n, s in reference.series.items() if n != name]
        if known is None or known.values.shape[1:] != (1,) or not others:
            continue
        late = known.times[:, 0] > torch.stack(others).amin(0)
        if bool(late.any()) or not bool(known.observed.any()):
            continue
        own = cohort.series.get(name)
        if own is None or own.values.shape[1:] != (1,):
            zero = torch.zeros(len(cohort), 1, dtype=torch.float64)
            own = Series(zero, zero, zero.bool())
        found[name] = own
    return found


def _channels(cohort: Cohort, name: str) -> int:
    values = cohort[name].values if name in cohort else torch.zeros(1, 1)
    return values.shape[2] if values.dim() == 3 else 0


def seen_recipients(
    series: Sequence[str],
    cohort: Cohort,
    start: float | None,
    occasion: Occasion,
    reference: Cohort | None = None,
) -> tuple[Recipients, Cohort]:
    r"""Individuals that were seen before, and their data with the occasion of the regimen.

    Args:
        series: Names of the series of the model.
        cohort: Their data.
        start: Time on their clocks at which the regimen begins; earlier doses still act. Default:
            after their last record, with earlier doses washed out.
        occasion: ``"new"``: the regimen belongs to an occasion of its own, if the cohort has
            occasions; ``"last"``: to the last one.
        reference: Data of the population.

    Raises:
        CohortError: A dose was recorded at ``start`` or after it.
        SettingError: ``occasion`` is neither.
    """
    if occasion not in ("new", "last"):
        raise SettingError(
            f"`occasion` is {occasion!r}.", '"new" or "last".', "correct `occasion=`."
        )
    if start is not None:
        check_number("start", start, -math.inf)
    cohort = _with_doses(cohort.to(dtype=torch.float64))
    if start is None:
        begin = last_records(cohort)
    else:
        begin = torch.full((len(cohort),), float(start), dtype=torch.float64)
        _check_earlier(cohort, float(start))
    begin = begin + AFTER_SAMPLE * begin.abs().clamp(min=1.0)
    if OCCASION in cohort.time_varying and occasion == "new":
        cohort = _with_new_occasion(cohort, begin)
    channels = {name: _channels(cohort, name) for name in series}
    earlier = cohort.doses if start is not None else None
    recipients = Recipients(
        channels,
        cohort.covariates,
        cohort.time_varying,
        cohort.ids,
        earlier,
        begin,
        cohort.categories,
        _events_of(cohort, series),
        _baseline_of(cohort, reference, series),
    )
    return recipients, cohort


def no_doses(num_individuals: int) -> Doses:
    """A record without doses, which models may read."""
    zero = torch.zeros(num_individuals, 1, dtype=torch.float64)
    return Doses(zero, zero, given=zero.bool())


def _with_doses(cohort: Cohort) -> Cohort:
    """The cohort with a record of doses, empty if it has none."""
    return cohort if cohort.doses is not None else replace(cohort, doses=no_doses(len(cohort)))


def last_records(cohort: Cohort) -> Tensor:
    """Time of the last sample or dose of each individual, shape ``(individual,)``; 0 where there
    is none.
    """
    lowest = -torch.inf
    times = [torch.where(s.present, s.times, lowest).amax(1) for s in cohort.series.values()]
    if cohort.doses is not None and cohort.doses.times.shape[1]:
        doses = cohort.doses
        times.append(torch.where(doses.given, doses.times + doses.durations, lowest).amax(1))
    last = torch.stack(times).amax(0)
    return torch.where(last.isfinite(), last, 0.0)


def _check_earlier(cohort: Cohort, start: float) -> None:
    """Raise if a dose was recorded at the begin of the regimen or after it."""
    doses = cohort.doses
    if doses is None:
        return
    late = (doses.given & (doses.times >= start)).any(1)
    if bool(late.any()):
        who = int(late.nonzero()[0])
        time = float(doses.times[who][doses.given[who]].max())
        raise CohortError(
            f"Individual {cohort.ids[who]} has a dose at {time:g}, and the regimen begins at "
            f"{start:g}.",
            "only doses that were given before the regimen begins.",
            "pass a later `start=`, or remove planned doses from the data.",
        )


def _with_new_occasion(cohort: Cohort, begin: Tensor) -> Cohort:
    """The cohort with a further occasion from ``begin`` on; occasions planned later are removed."""
    record = cohort.time_varying[OCCASION]
    labels = record.at(record.times)
    past = record.times < begin.unsqueeze(1)
    largest = torch.where(past, labels, labels.amin(1, keepdim=True)).amax(1, keepdim=True)
    first_only = torch.zeros_like(past)
    first_only[:, 0] = True
    keep = past | first_only
    times = torch.where(keep, record.times, begin.unsqueeze(1))
    values = torch.where(keep, labels, largest + 1)
    extended = Series(
        torch.cat([times, begin.unsqueeze(1)], 1), torch.cat([values, largest + 1], 1)
    )
    return replace(cohort, time_varying={**cohort.time_varying, OCCASION: extended})
