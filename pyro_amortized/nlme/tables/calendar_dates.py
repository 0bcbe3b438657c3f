r"""Dates in the column TIME or in a column of their own (DATE, DAT1, DAT2, DAT3)."""

import re

import numpy as np
import pandas as pd

from .clock_entries import clock
from .table_file import LOG
from .table_source import DATES, Numbers, Table, is_blank

ZONE = r"\d(?:Z|[+-]\d{2}:?\d{2})$"  # behind a time of day
# 13FEB2020:22:00:00 (SAS), 13-Feb-2020 22:00
MONTH_BY_NAME = re.compile(r"(\d{1,2})[-/ ]?([A-Za-z]{3})[-/ ]?(\d{4})(?:[:T\s]+(.+))?")
SLASHES = re.compile(r"(\d{1,2}[/.-]\d{1,2}[/.-]\d{4})(?:[,\s]+(.+))?")
ORDERS = {"%m/%d/%Y": "month/day/year", "%d/%m/%Y": "day/month/year"}
# What a column of dates contains, in the words of its users.
WORDS = {"DATE": "mm/dd/yyyy", "DAT1": "dd/mm/yyyy", "DAT2": "yyyy/mm/dd", "DAT3": "yyyy/dd/mm"}


def stamps(table: Table) -> Numbers:
    r"""Seconds of dates with times in the column TIME; those with a time zone are compared in
    universal time.

    Raises:
        TableError: An entry cannot be read, has no time zone where others have one, or may be
            month/day/year as well as day/month/year.
    """
    column = table.frame["TIME"]
    text = column.map(lambda x: x.isoformat() if hasattr(x, "isoformat") else str(x).strip())
    if text.map(lambda x: SLASHES.fullmatch(x) is not None).all():
        return _with_slashes(table, text)
    text = text.map(_iso)
    has_zone = text.str.contains(ZONE).to_numpy(dtype=bool)
    if has_zone.any():
        expected = "a time zone, as in other rows."
        table.refuse(~has_zone, "TIME", expected, "add the time zone (Z or +01:00) in all rows.")
    parsed = pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)
    table.refuse(
        parsed.isna().to_numpy(dtype=bool),
        "TIME",
        "numbers, clock times (hh:mm), or dates with times (yyyy-mm-dd hh:mm) in all rows.",
        "correct the entry.",
    )
    origin = pd.Timestamp(0, tz="UTC")
    return np.asarray((parsed - origin).dt.total_seconds(), dtype=float)


def _iso(text: str) -> str:
    """A date with the name of its month in the order of ISO 8601; other texts as they are."""
    found = MONTH_BY_NAME.fullmatch(text)
    if found is None:
        return text
    day, month, year, of_day = found.groups()
    date = pd.to_datetime(f"{day} {month} {year}", format="%d %b %Y", errors="coerce")
    if pd.isna(date):
        return text
    seconds = 0.0 if of_day is None else clock(of_day)
    return text if seconds is None else (date + pd.Timedelta(seconds=seconds)).isoformat()


def _with_slashes(table: Table, text: pd.Series) -> Numbers:
    """Seconds of dates such as 2/13/2020 22:00, in the only order in which all can be read."""
    parts = [SLASHES.fullmatch(x) for x in text]
    dates = pd.Series([x.group(1) if x else "" for x in parts]).str.replace(
        r"[.-]", "/", regex=True
    )
    of_day = np.array(
        [np.nan if (s := clock((x and x.group(2)) or "0:00")) is None else s for x in parts]
    )
    table.refuse(np.isnan(of_day), "TIME", "a clock time behind the date.", "correct the entry.")
    found = {order: _parsed_days(dates, order) for order in ORDERS}
    possible = {order: x for order, x in found.items() if not np.isnan(x).any()}
    different = len(possible) == 2 and _differ(*possible.values())
    cure = (
        "write yyyy-mm-dd hh:mm; or put the dates into a column DATE (mm/dd/yyyy) or DAT1 "
        "(dd/mm/yyyy) and clock times into TIME."
    )
    if different or not possible:
        # the first row whose date is not that of the row before
        row = 0 if possible else int(np.argmax(np.isnan(found["%d/%m/%Y"])))
        expected = "a date in one order of day and month in all rows, which the entries show."
        raise table.error(row, "TIME", expected, cure)
    order, days = next(iter(possible.items()))
    LOG.warning("The dates in TIME are read as %s.", ORDERS[order])
    return np.asarray(days * 86400.0 + of_day, dtype=float)


def _parsed_days(dates: pd.Series, order: str) -> Numbers:
    parsed = pd.to_datetime(dates, errors="coerce", format=order)
    return np.asarray((parsed - pd.Timestamp(0)).dt.total_seconds() / 86400.0, dtype=float)


def _differ(one: Numbers, other: Numbers) -> bool:
    """Whether two readings of the dates give other differences of times."""
    return not np.allclose(one - one[0], other - other[0])


def days(table: Table, name: str) -> Numbers:
    r"""Numbers of days of a column of dates.

    Raises:
        TableError: A date is missing, or has neither the order of the column nor that of ISO 8601.
    """
    column = table.frame[name]
    blank = column.map(is_blank).to_numpy(dtype=bool)
    table.refuse(blank, name, "a date in every row.", "fill in the date.")
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    if np.isfinite(numbers).all():
        return numbers
    text = column.astype(str).str.strip().map(_iso).str.removesuffix("T00:00:00")
    text = text.str.replace(r"[-.]", "/", regex=True)
    iso, own = _parsed_days(text, "%Y/%m/%d"), _parsed_days(text, DATES[name])
    dates = np.where(np.isnan(iso), own, iso)
    others = [x for x in ("DATE", "DAT1") if x != name and name in ("DATE", "DAT1")]
    hint = "".join(f" A column of dates {WORDS[x]} has the name {x}." for x in others)
    expected = f"a day number, yyyy-mm-dd or {WORDS[name]}."
    table.refuse(np.isnan(dates), name, expected, "correct the date." + hint)
    if others:
        other = _parsed_days(text, DATES[others[0]])
        if not np.isnan(other).any() and _differ(dates, other):
            LOG.warning("The dates in %s are read as %s.%s", name, WORDS[name], hint)
    return dates
