r"""The column TIME: numbers, clock times or dates."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ...errors import TableError
from .table_source import DATES, Numbers, Table, is_blank

UNITS = {"min": 60.0, "h": 3600.0, "d": 86400.0}
ZONE = r"\d(?:Z|[+-]\d{2}:?\d{2})$"  # behind a time of day


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
        clocks = column.map(_clock).notna().to_numpy(dtype=bool)
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


def _clock(entry: Any) -> float | None:
    """Seconds since midnight of ``hh:mm`` or ``hh:mm:ss``."""
    parts = str(entry).strip().split(":")
    if len(parts) not in (2, 3) or not all(p.strip().isdigit() for p in parts):
        return None
    hours, minutes, seconds = (*map(int, parts), 0)[:3]
    valid = hours < 24 and minutes < 60 and seconds < 60
    return 3600.0 * hours + 60.0 * minutes + seconds if valid else None


def _same_day(table: Table, ids: list[str], unit: str) -> Numbers:
    seconds = table.frame["TIME"].map(_clock).to_numpy(dtype=float)
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
    days = None if date is None else _days(table, date)
    seconds = _stamps(table) if days is None else days * 86400.0 + _time_of_day(table)
    first: dict[str, float] = {}
    for name, now in zip(ids, seconds.tolist(), strict=True):
        first[name] = min(first.get(name, np.inf), now)
    origin = np.array([first[name] for name in ids])
    return np.asarray((seconds - origin) / UNITS[unit], dtype=float)


def _stamps(table: Table) -> Numbers:
    """Seconds of dates with times; those with a time zone are compared in universal time."""
    column = table.frame["TIME"]
    text = column.map(lambda x: x.isoformat() if hasattr(x, "isoformat") else str(x).strip())
    has_zone = text.str.contains(ZONE).to_numpy(dtype=bool)
    if has_zone.any():
        expected = "a time zone, as in other rows."
        table.refuse(~has_zone, "TIME", expected, "add the time zone (Z or +01:00) in all rows.")
    stamps = pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)
    table.refuse(
        stamps.isna().to_numpy(dtype=bool),
        "TIME",
        "numbers, clock times (hh:mm), or dates with times (yyyy-mm-dd hh:mm) in all rows.",
        "correct the entry.",
    )
    origin = pd.Timestamp(0, tz="UTC")
    return np.asarray((stamps - origin).dt.total_seconds(), dtype=float)


def _days(table: Table, name: str) -> Numbers:
    column = table.frame[name]
    blank = column.map(is_blank).to_numpy(dtype=bool)
    table.refuse(blank, name, "a date in every row.", "fill in the date.")
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    if np.isfinite(numbers).all():
        return numbers
    text = column.astype(str).str.strip().str.replace(r"[-.]", "/", regex=True)
    dates = pd.to_datetime(text, errors="coerce", format="%Y/%m/%d")
    dates = dates.fillna(pd.to_datetime(text, errors="coerce", format=DATES[name]))
    table.refuse(
        dates.isna().to_numpy(dtype=bool),
        name,
        f"a day number, yyyy-mm-dd or {DATES[name]}.",
        "correct the date.",
    )
    return np.asarray((dates - pd.Timestamp(0)).dt.days, dtype=float)


def _time_of_day(table: Table) -> Numbers:
    """Seconds since midnight; plain numbers are hours."""
    column = table.frame["TIME"]
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    clocks = column.map(_clock).to_numpy(dtype=float, na_value=np.nan)
    seconds = np.where(np.isnan(clocks), numbers * 3600.0, clocks)
    table.refuse(
        ~np.isfinite(seconds), "TIME", "a clock time (hh:mm) or hours.", "correct the entry."
    )
    return seconds
