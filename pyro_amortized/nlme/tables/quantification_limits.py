r"""Limits of quantification of a series: those that the user gives, and one for every value."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...cohort import Series
from ...errors import TableError
from .table_file import LOG
from .table_source import Table, is_blank, label

QuantificationLimit = float | Mapping[str, float] | None
# Distance of a limit from a value that was recorded outside it, relative to the value and at least:
# beyond rounding, and without influence on a likelihood.
MARGIN = 1e-9
# A limit that no value reaches lies below the smallest one by this many times the range of the
# values.
FAR = 10.0


def with_limits(
    table: Table,
    series: str | Mapping[object, str],
    endpoint: str,
    lloq: QuantificationLimit,
    uloq: QuantificationLimit,
) -> Table:
    r"""The table with the limits that the user gives, where its columns LLOQ and ULOQ have none.

    Args:
        table: The table.
        series: Name of the series, or the names of the endpoints.
        endpoint: Column that distinguishes the endpoints.
        lloq: Lower limit, a number or one for each series.
        uloq: Upper limit.

    Raises:
        TableError: A limit is no finite number, or belongs to no series.
    """
    names = None
    for argument, column, limit in (("lloq", "LLOQ", lloq), ("uloq", "ULOQ", uloq)):
        if limit is None:
            continue
        names = _names_of_rows(table, series, endpoint) if names is None else names
        frame = table.frame.copy()
        cells = list(frame[column]) if column in table else [None] * len(frame)
        for name, value in _by_series(argument, limit, names).items():
            cells = [
                value if is_blank(cell) and (name is None or name in those) else cell
                for cell, those in zip(cells, names, strict=True)
            ]
        frame[column] = cells
        table = replace(table, frame=frame)
    return table


def _names_of_rows(
    table: Table, series: str | Mapping[object, str], endpoint: str
) -> list[tuple[str, ...]]:
    """The names of the series to which each row may belong."""
    if endpoint not in table:
        return [(str(series),)] * len(table.frame)
    labels = [label(x) for x in table.frame[endpoint]]
    if isinstance(series, str):
        return [(series, f"{series}_{x}") for x in labels]
    named = {label(k): v for k, v in series.items()}
    return [(named.get(x, f"dv_{x}"),) for x in labels]


def _by_series(
    argument: str, limit: float | Mapping[str, float], names: list[tuple[str, ...]]
) -> dict[str | None, float]:
    """Limit by series; of all series for None."""
    given: dict[str | None, float] = {}
    given.update(limit.items() if isinstance(limit, Mapping) else [(None, limit)])
    known = {name for those in names for name in those}
    for name, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or (name is not None and name not in known):
            raise TableError(
                f"`{argument}` is {limit!r}.",
                f"a finite number, or one for each of the series {sorted(known)}.",
                f"pass for instance `{argument}=0.5`, or `{argument}={{{min(known)!r}: 0.5}}`.",
            )
    return {name: float(value) for name, value in given.items()}


def limit_of_every_value(times: Tensor, values: Tensor, bound: Tensor, side: int) -> Series:
    """A limit for every value.

    It is the limit of the row, or else that of the individual, carried forward and back, or else
    the most frequent one. A limit is moved beyond a value that was recorded outside it.
    """
    most_frequent = bound[~bound.isnan()].mode().values
    bound_or_frequent = torch.where(bound.isnan().all(1, keepdim=True), most_frequent, bound)
    filled = Series(times, bound_or_frequent)
    known = torch.arange(times.shape[1])
    last = torch.where(filled.observed, known, -1).cummax(1).values
    begin = filled.observed.to(torch.uint8).argmax(1, keepdim=True)
    carried = filled.values.gather(1, torch.where(last >= 0, last, begin))
    margin = MARGIN * values.abs().clamp(min=MARGIN)
    outside = bound.isnan() & ~values.isnan() & (side * (values - carried) >= 0)
    return Series(times, torch.where(outside, values + side * margin, carried))


def limit_of_no_value(name: str, values: Tensor) -> Tensor:
    r"""The lower limits of a series of which no value lies below a limit that nothing gives.

    The same program then runs as for a table that has such values, and nothing is censored: the
    limit is 0 where no value is negative, and far below all of them otherwise.

    Args:
        name: Name of the series, for the log.
        values: Its values, NaN where they are not recorded.

    Returns:
        A limit for every value, shape of ``values``.
    """
    recorded = values[~values.isnan()]
    if len(recorded) == 0:
        limit = 0.0
    else:
        low, high = float(recorded.min()), float(recorded.max())
        limit = 0.0 if low >= 0 else low - FAR * max(high - low, abs(low))
    LOG.warning(
        "No value of %s lies below its limit, which the table does not give: %s_low is %g, which "
        "censors nothing. Give the limit by `lloq=`, or in a column LLOQ.",
        name,
        name,
        limit,
    )
    return torch.full_like(values, limit)


def number_labels_of_occasions(table: Table) -> Table:
    """The table with numbers in place of labels in the column OCC, in the order in which they
    occur; numbers stay as they are.
    """
    if "OCC" not in table:
        return table
    cells = table.frame["OCC"]
    filled = ~cells.map(is_blank).to_numpy(dtype=bool)
    labels = [label(x) for x in cells]
    present = list(dict.fromkeys(x for x, known in zip(labels, filled, strict=True) if known))
    if all(_is_number(x) for x in present):
        return table
    numbers = {x: k for k, x in enumerate(present, 1)}
    LOG.warning(
        "The labels in OCC are numbered: %s.", ", ".join(f"{x} is {k}" for x, k in numbers.items())
    )
    frame = table.frame.copy()
    known = zip(labels, filled, strict=True)
    frame["OCC"] = [numbers[x] if is_known else np.nan for x, is_known in known]
    return replace(table, frame=frame)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
