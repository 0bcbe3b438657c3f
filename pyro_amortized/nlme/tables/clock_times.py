r"""The column TIME: numbers, clock times or dates."""

from dataclasses import replace

import numpy as np
import pandas as pd

from ...errors import TableError
from .calendar_dates import days, stamps
from .clock_entries import clock
from .table_source import DATES, Numbers, Table, is_blank

UNITS = {"min": 60.0, "h": 3600.0, "d": 86400.0}


def times(table: Table, ids: list[str], unit: str) -> Numbers:
    r"""Times in the given unit, from numbers, clock times, dates, or dates with clock times.

    Times with a date are counted from the first record of the individual.

    Raises:
        TableError: A time cannot be read, or clock times decrease without a date.
    """
    if unit not in UNITS:
        problem = f"`time_unit` is {unit!r}."
        raise TableError(problem, f"one of {list(UNITS)}.", "correct `time_unit`.")
    column = table.frame["TIME"]
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
        table = replace(table, frame=table.frame.assign(TIME=column))
    blank = column.map(is_blank).to_numpy(dtype=bool)
    table.refuse(blank, "TIME", "a time in every row.", "fill in the time.")
    date = next((name for name in DATES if name in table), None)
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return np.asarray(column.dt.total_seconds() / UNITS[unit], dtype=float)
    if pd.api.types.is_datetime64_any_dtype(column.dtype) and date is None:
        return _calendar(table, ids, unit, None)
    if date is None:
        clocks = column.map(clock).notna().to_numpy(dtype=bool)
        if clocks.any():
            fix = "correct the entry; all rows need clock times, and a later day a column DATE."
            expected = "a clock time from 0:00 to 23:59, as in other rows."
            table.refuse(~clocks, "TIME", expected, fix)
            return _same_day(table, ids, unit)
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
        if not np.isnan(numbers).all():
            return _plain(table, numbers)
    return _calendar(table, ids, unit, date)


def _plain(table: Table, numbers: Numbers) -> Numbers:
    table.refuse(
        ~np.isfinite(numbers),
        "TIME",
        "a finite number, as in the other rows.",
        "correct the entry; if one row has a clock time or date, all rows need one.",
    )
    return numbers


def _same_day(table: Table, ids: list[str], unit: str) -> Numbers:
    seconds = table.frame["TIME"].map(clock).to_numpy(dtype=float)
    last: dict[str, float] = {}
    for row, (name, now) in enumerate(zip(ids, seconds, strict=True)):
        if now < last.get(name, 0.0):
            raise table.error(
                row,
                "TIME",
                "clock times that do not decrease, because there is no date.",
                "add a column DATE, or give times in hours since the first record.",
            )
        last[name] = now
    return np.asarray(seconds / UNITS[unit], dtype=float)


def _calendar(table: Table, ids: list[str], unit: str, date: str | None) -> Numbers:
    if date is None:
        seconds = stamps(table)
    else:
        dates = days(table, date)
        seconds = dates * 86400.0 + _time_of_day(table, date, dates)
    first: dict[str, float] = {}
    for name, now in zip(ids, seconds.tolist(), strict=True):
        first[name] = min(first.get(name, np.inf), now)
    origin = np.array([first[name] for name in ids])
    return np.asarray((seconds - origin) / UNITS[unit], dtype=float)


def _time_of_day(table: Table, date: str, dates: Numbers) -> Numbers:
    """Seconds since midnight; plain numbers are hours."""
    column = table.frame["TIME"]
    hours = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    clocks = column.map(clock).to_numpy(dtype=float, na_value=np.nan)
    cure = f"write 22:00 for 2200; or leave out {date}, if TIME counts from the first dose already."
    expected = f"a clock time (hh:mm), or hours from 0 to 24, because there are dates ({date})."
    table.refuse((hours < 0) | (hours > 24), "TIME", expected, cure)
    later = hours > 0
    if later.any() and np.nanmax(hours) < 1 and len(np.unique(dates[later])) > 1:
        expected = "hours, or clock times; all numbers are below 1, and may be fractions of a day."
        fix = "write clock times (hh:mm), or multiply fractions of a day by 24."
        raise table.error(int(np.flatnonzero(later)[0]), "TIME", expected, fix)
    seconds = np.where(np.isnan(clocks), hours * 3600.0, clocks)
    table.refuse(
        ~np.isfinite(seconds), "TIME", "a clock time (hh:mm) or hours.", "correct the entry."
    )
    return seconds
