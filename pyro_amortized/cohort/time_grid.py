r"""Common time grids: whether a cohort has one, and cohorts brought onto one.

Where all individuals share their scheduled times, a network can read the values in fixed places,
which it learns faster than from a set. A cohort with fewer, more or reordered columns is brought
onto the grid by the times of its recorded values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import GuideError
from . import Cohort, Series

TOLERANCE = 1e-6


def common_grid(cohort: Cohort, names: Sequence[str]) -> dict[str, list[float]] | None:
    r"""The scheduled times of each series if all individuals share them, else None.

    Example:
        >>> times = torch.tensor([0.0, 1.0, 3.0]).expand(5, -1)
        >>> common_grid(Cohort({"y": Series(times, torch.ones(5, 3))}), ["y"])
        {'y': [0.0, 1.0, 3.0]}
    """
    grids = {}
    for name in names:
        times = cohort[name].times
        strictly = bool((times[0].diff() > _slack(times[0])).all())
        if not strictly or bool((times != times[0]).any()):
            return None
        grids[name] = times[0].double().tolist()
    return grids


def onto_grid(cohort: Cohort, grids: Mapping[str, Sequence[float]]) -> Cohort:
    r"""The cohort with every recorded value in its place on the grid.

    Args:
        cohort: N individuals.
        grids: Times of each series, increasing.

    Raises:
        GuideError: A value was recorded at a time that is not on the grid, or two of one individual
            at the same.
    """
    series = dict(cohort.series)
    for name, grid in grids.items():
        times = torch.tensor(grid, dtype=torch.float64, device=cohort.device)
        found = cohort[name]
        same = found.times.shape[1] == len(times) and bool(
            ((found.times - times).abs() <= _slack(times)).all()
        )
        series[name] = found if same else _place(cohort, name, times)
    return replace(cohort, series=series)


def _slack(times: Tensor) -> float:
    return TOLERANCE * max(float(times[-1] - times[0]), 1e-300)


def _place(cohort: Cohort, name: str, grid: Tensor) -> Series:
    found = cohort[name]
    times, num = found.times.double(), len(cohort)
    nearest = torch.searchsorted((grid[1:] + grid[:-1]) / 2, times.contiguous())
    present = found.present
    off = present & ((grid[nearest] - times).abs() > _slack(grid))
    count = torch.zeros(num, len(grid), dtype=torch.long, device=times.device)
    count.scatter_add_(1, nearest, present.long())
    wrong = off.any(1) | (count > 1).any(1)
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        at = times[i][off[i]].tolist() or grid[count[i] > 1].tolist()
        raise GuideError(
            f"Individual {cohort.ids[i]!r} has {'values' if off[i].any() else 'two values'} of "
            f"{name!r} at time {at[0]:g} ({int(wrong.sum())} such individuals).",
            f"at most one value at each of the times {[round(t, 6) for t in grid.tolist()[:12]]} "
            "that all training data share.",
            "train the guide on a design with these times, or with "
            "`networks=Networks(grid=False)` and a design whose times vary.",
        )
    rows = torch.arange(num, device=times.device).unsqueeze(1).expand_as(nearest)[present]
    shape = (num, len(grid), *found.values.shape[2:])
    values, observed = found.values.new_ones(shape), found.observed.new_zeros(shape)
    values[rows, nearest[present]] = found.values[present]
    observed[rows, nearest[present]] = found.observed[present]
    return Series(grid.to(found.times.dtype).expand(num, -1), values, observed)
