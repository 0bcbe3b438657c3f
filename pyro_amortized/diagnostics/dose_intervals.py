r"""Times in relation to the doses: time after dose, and gaps in which a line would mislead."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..cohort import Cohort


@dataclass(frozen=True)
class GapSettings:
    r"""When a line between two times is broken.

    Args:
        with_dose: Length of a gap, in median distances between neighbouring times, from which on a
            line is broken if a dose lies in the gap: the curve has a peak there that nobody saw.
        without_dose: The same without a dose in the gap.
        beside_course: Length of a gap without a dose, as a multiple of the time since the course
            began (since the last dose), from which on a line is broken: planned times are often
            denser at the beginning, and 12, 24 and 48 h belong to one course.
    """

    with_dose: float = 2.5
    without_dose: float = 10.0
    beside_course: float = 2.0


GAPS = GapSettings()


def time_after_dose(cohort: Cohort, series: str) -> Tensor:
    r"""Time since the last dose, of every time of a series.

    Args:
        cohort: N individuals.
        series: Name of the series.

    Returns:
        Shape ``(individual, time)``, unit of the times; NaN before the first dose, and without
        doses. A dose at the time of a value is its last one.
    """
    times = cohort[series].times
    if cohort.doses is None or not cohort.doses.given.any():
        return torch.full_like(times, torch.nan)
    given = torch.where(cohort.doses.given, cohort.doses.times.to(times.dtype), torch.inf)
    since = times.unsqueeze(-1) - given.unsqueeze(1)
    after = torch.where(since >= 0, since, torch.inf).amin(-1)
    return torch.where(after.isfinite(), after, torch.nan)


def course_numbers(cohort: Cohort, series: str, *, by_dose: bool) -> Tensor:
    r"""The course that each time of a series belongs to: one of the individual, or of its dose.

    Args:
        cohort: N individuals.
        series: Name of the series.
        by_dose: A course begins at each dose of an individual. Otherwise an individual has one.

    Returns:
        Integers, shape ``(individual, time)``; equal for values of one course.
    """
    times = cohort[series].times
    rows = torch.arange(len(cohort)).unsqueeze(1).expand_as(times)
    if not by_dose or cohort.doses is None:
        return rows
    given = torch.where(cohort.doses.given, cohort.doses.times.to(times.dtype), torch.inf)
    before = (given.unsqueeze(1) <= times.unsqueeze(-1)).sum(-1)
    return rows * (given.shape[1] + 1) + before


def dose_times(cohort: Cohort, rows: Tensor | None = None) -> np.ndarray:
    """The times of the doses of some individuals (a boolean mask), each once."""
    if cohort.doses is None:
        return np.zeros(0)
    given = cohort.doses.given if rows is None else cohort.doses.given & rows.unsqueeze(1)
    return np.unique(cohort.doses.times[given].numpy())


def unbroken(times: np.ndarray, doses: np.ndarray) -> list[slice]:
    r"""Parts of sorted times within which neighbours may be joined by a line.

    Args:
        times: Sorted times, shape ``(time,)``.
        doses: Sorted times of doses.

    Returns:
        The parts, in their order; all times are in one of them.
    """
    distances = np.diff(times)
    known = distances[distances > 0]
    if len(known) < 2:
        return [slice(0, len(times))]
    median = float(np.median(known))
    given = np.searchsorted(doses, times, "right")
    begin = np.concatenate([[times[0]], doses])[given]
    without = np.maximum(GAPS.without_dose * median, GAPS.beside_course * (times - begin)[:-1])
    limit = np.where(given[1:] > given[:-1], GAPS.with_dose * median, without)
    ends = [0, *(np.flatnonzero(distances > limit) + 1), len(times)]
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]


def with_breaks(times: np.ndarray, values: np.ndarray, doses: np.ndarray) -> tuple[np.ndarray, ...]:
    """Times and values with NaN between parts that are not joined, for one line of a figure."""
    parts = unbroken(times, doses)
    gap = np.array([np.nan])
    x = [piece for part in parts for piece in (times[part], gap)]
    y = [piece for part in parts for piece in (values[part], gap)]
    return np.concatenate(x[:-1]), np.concatenate(y[:-1])
