r"""Time grids and time windows that all individuals share.

If all individuals have the same scheduled times, every time has a fixed place in the input of a
network, which then learns faster than from a set of values. The functions of this module find such
a grid, and arrange a cohort with fewer, more or reordered columns on it by the times of its
recorded values. If individuals have times near those of a common schedule, or some of them, windows
of time take the place of the grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import GuideError
from .cohort import Cohort
from .series import Series


@dataclass(frozen=True)
class TimeGridSettings:
    r"""When two times are equal.

    Args:
        tolerance: Largest difference of equal times, as a share of the span of the grid. Times that
            were written to a table with six digits, or converted to float32, are still equal.
        min_span: Stands for the span of a grid of a single time.
        max_listed: Number of times of the grid that an error message lists.
        max_windows: Windows of a series per value of the individual that has most of them. With
            more windows than that most places are empty, and the times follow no schedule.
    """

    tolerance: float = 1e-6
    min_span: float = 1e-300
    max_listed: int = 12
    max_windows: float = 2.5


DEFAULTS = TimeGridSettings()


def common_grid(cohort: Cohort, names: Sequence[str]) -> dict[str, list[float]] | None:
    r"""The scheduled times of each series if all individuals share them, else None.

    Args:
        cohort: N individuals.
        names: Names of series.

    Example:
        >>> times = torch.tensor([0.0, 1.0, 3.0]).expand(5, -1)
        >>> common_grid(Cohort({"y": Series(times, torch.ones(5, 3))}), ["y"])
        {'y': [0.0, 1.0, 3.0]}
    """
    grids = {}
    for name in names:
        times = cohort[name].times
        is_increasing = bool((times[0].diff() > _tolerance(times[0])).all())
        if not is_increasing or bool((times != times[0]).any()):
            return None
        grids[name] = times[0].double().tolist()
    return grids


def time_windows(cohort: Cohort, names: Sequence[str]) -> dict[str, list[float]] | None:
    r"""Windows of time that hold at most one scheduled value of each individual.

    They are made from the first time on: a window ends before the first time at which an individual
    would have a second value in it.

    Args:
        cohort: N individuals.
        names: Names of series.

    Returns:
        The times between the windows of each series, one fewer than there are windows; None if the
        times follow no schedule, so that there would be many more windows than values.

    Example:
        >>> times = torch.tensor([[0.0, 1.0, 3.1], [0.1, 0.9, 3.0]])
        >>> windows = time_windows(Cohort({"y": Series(times, torch.ones(2, 3))}), ["y"])
        >>> [round(t, 2) for t in windows["y"]]
        [0.5, 2.0]
    """
    windows = {}
    for name in names:
        times, present = cohort[name].times.double(), cohort[name].present
        longest = int(present.sum(1).max()) if present.numel() else 0
        edges = _edges(times, present, int(DEFAULTS.max_windows * longest))
        if edges is None:
            return None
        windows[name] = edges
    return windows


def _edges(times: Tensor, present: Tensor, most: int) -> list[float] | None:
    """The times between windows, or None if there are more than ``most`` windows."""
    rows = present.nonzero()[:, 0].tolist()
    individuals: dict[float, set[int]] = {}
    for time, row in zip(times[present].tolist(), rows, strict=True):
        individuals.setdefault(time, set()).add(row)
    edges: list[float] = []
    inside: set[int] = set()
    latest = 0.0
    for time in sorted(individuals):
        if inside & individuals[time]:
            if len(edges) + 2 > most:
                return None
            edges.append((latest + time) / 2)
            inside = set()
        inside |= individuals[time]
        latest = time
    return edges


def onto_grid(cohort: Cohort, grids: Mapping[str, Sequence[float]]) -> Cohort:
    r"""The cohort with a column for every time of the grid, and every recorded value in its column.

    Args:
        cohort: N individuals.
        grids: Times of each series, increasing.

    Raises:
        GuideError: A value was recorded at a time that is not on the grid, or two values of one
            individual at the same time.
    """
    series = dict(cohort.series)
    for name, grid in grids.items():
        times = torch.tensor(grid, dtype=torch.float64, device=cohort.device)
        s = cohort[name]
        is_on_grid = s.times.shape[1] == len(times) and bool(
            ((s.times - times).abs() <= _tolerance(times)).all()
        )
        series[name] = s if is_on_grid else _place(cohort, name, times)
    return replace(cohort, series=series)


def _tolerance(times: Tensor) -> float:
    """Largest difference of equal times of a grid."""
    return DEFAULTS.tolerance * max(float(times[-1] - times[0]), DEFAULTS.min_span)


def _place(cohort: Cohort, name: str, grid: Tensor) -> Series:
    """A series with a column for every time of the grid."""
    s, num = cohort[name], len(cohort)
    times, present = s.times.double(), s.present
    nearest = torch.searchsorted((grid[1:] + grid[:-1]) / 2, times.contiguous())
    is_off_grid = present & ((grid[nearest] - times).abs() > _tolerance(grid))
    count = torch.zeros(num, len(grid), dtype=torch.long, device=times.device)
    count.scatter_add_(1, nearest, present.long())
    wrong = is_off_grid.any(1) | (count > 1).any(1)
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        at = times[i][is_off_grid[i]].tolist() or grid[count[i] > 1].tolist()
        shown = [round(t, 6) for t in grid.tolist()[: DEFAULTS.max_listed]]
        raise GuideError(
            f"Individual {cohort.ids[i]!r} has {'values' if is_off_grid[i].any() else 'two values'}"
            f" of {name!r} at time {at[0]:g} ({int(wrong.sum())} such individuals).",
            f"at most one value at each of the times {shown} that all training data share.",
            "train the guide on a design with these times, or with "
            "`networks=Networks(grid=False)` and a design whose times vary.",
        )
    rows = torch.arange(num, device=times.device).unsqueeze(1).expand_as(nearest)[present]
    shape = (num, len(grid), *s.values.shape[2:])
    values, observed = s.values.new_ones(shape), s.observed.new_zeros(shape)
    values[rows, nearest[present]] = s.values[present]
    observed[rows, nearest[present]] = s.observed[present]
    return Series(grid.to(s.times.dtype).expand(num, -1), values, observed)
