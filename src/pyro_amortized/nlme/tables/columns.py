r"""Columns of a long table: loaded, parsed, checked. Every error names its row and column."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...errors import TableError

LOG = logging.getLogger("pyro_amortized.nlme")
Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

NUMERIC = {
    "DV": np.nan,
    "AMT": 0.0,
    "RATE": 0.0,
    "II": 0.0,
    "ADDL": 0.0,
    "SS": 0.0,
    "EVID": np.nan,
    "CMT": 1.0,
    "MDV": 0.0,
    "CENS": 0.0,
    "LIMIT": np.nan,
    "BLQ": 0.0,
    "LLOQ": np.nan,
    "ULOQ": np.nan,
}
DATES = {"DATE": "%m/%d/%Y", "DAT1": "%d/%m/%Y", "DAT2": "%Y/%m/%d", "DAT3": "%Y/%d/%m"}
OTHERS = ("ID", "TIME", "DVID", "OCC", "L2")
KNOWN = {*NUMERIC, *DATES, *OTHERS}
UNITS = {"min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, eq=False)
class Table:
    r"""A loaded table.

    Args:
        frame: The rows; known columns in capitals.
        labels: What messages call the rows: lines of a file, labels of a DataFrame.
    """

    frame: pd.DataFrame
    labels: pd.Index

    def __contains__(self, name: object) -> bool:
        return name in self.frame.columns

    def wrong(self, row: int, column: str, expected: str, mend: str) -> TableError:
        """An error about one entry."""
        entry = self.frame[column].iloc[row] if column in self else None
        entry = entry.item() if isinstance(entry, np.generic) else entry
        found = "is missing" if _is_blank(entry) else f"is {entry!r}"
        return TableError(f"Row {self.labels[row]}, column {column} {found}.", expected, mend)

    def refuse(self, where: Mask, column: str, expected: str, mend: str) -> None:
        """Raise about the first row of a mask, if there is one."""
        if where.any():
            raise self.wrong(int(np.flatnonzero(where)[0]), column, expected, mend)

    def numbers(self, name: str, default: float = np.nan) -> Numbers:
        """A numeric column; blanks become the default."""
        if name not in self:
            return np.full(len(self.frame), default)
        column = self.frame[name]
        found = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        blank = column.map(_is_blank).to_numpy(dtype=bool)
        self.refuse(
            np.isnan(found) & ~blank,
            name,
            "a number (`.` or an empty cell for a missing value).",
            "correct the entry.",
        )
        return np.where(blank, default, found)


def load(table: str | Path | pd.DataFrame) -> Table:
    r"""Load a table.

    Raises:
        TableError: The file cannot be read, a needed column is missing or there twice, or there is
            no row.
    """
    if isinstance(table, pd.DataFrame):
        frame = table.copy()
        labels = frame.index
    else:
        frame, labels = _from_file(Path(table))
    frame.columns = [c.upper() if c.upper() in KNOWN else c for c in map(str, frame.columns)]
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise TableError(
            f"The table has the column {twice[0]} more than once.",
            "every column once (case does not count).",
            "rename or drop one of them.",
        )
    for name in ("ID", "TIME", "DV"):
        if name not in frame.columns:
            raise TableError(
                f"The table has no column {name} (it has {list(frame.columns)}).",
                "the columns ID, TIME and DV.",
                "rename your columns, for instance `frame.rename(columns={'Subject': 'ID'})`.",
            )
    if not len(frame):
        raise TableError("The table has no rows.", "one row per event.", "check the file.")
    found = Table(frame.reset_index(drop=True), labels)
    blank = found.frame["ID"].map(_is_blank).to_numpy(dtype=bool)
    found.refuse(blank, "ID", "an ID in every row.", "fill in the ID.")
    return found


def _from_file(path: Path) -> tuple[pd.DataFrame, pd.Index]:
    """The rows, and the line of the file that each stands in."""
    try:
        frame = pd.read_csv(path, comment="#", na_values=["."], skipinitialspace=True)
        text = path.read_text("utf-8").splitlines()
        lines = [n for n, x in enumerate(text, 1) if x.strip() and not x.startswith("#")][1:]
        return frame, pd.Index(lines if len(lines) == len(frame) else range(2, len(frame) + 2))
    except FileNotFoundError as error:
        raise TableError(
            f"There is no file {path}.", "the path of a CSV file.", "check the path."
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise TableError(
            f"{path} cannot be read: {str(error).strip().splitlines()[-1]}",
            "a CSV file with a header and equally many cells in every line.",
            "correct the line; values with commas need quotation marks.",
        ) from error


def _is_blank(x: Any) -> bool:
    return x is None or (isinstance(x, str) and x.strip() in ("", ".")) or bool(pd.isna(x))


def identifiers(table: Table) -> list[str]:
    """IDs as text; whole numbers without a fraction."""
    return [label(x) for x in table.frame["ID"]]


def label(x: Any) -> str:
    """An ID or category as text; whole numbers without a fraction."""
    if isinstance(x, float | np.floating) and float(x).is_integer():
        return str(int(x))
    return str(x).strip()


def times(table: Table, ids: list[str], unit: str) -> Numbers:
    r"""Times in the unit, from numbers, clock times, dates, or dates with clock times.

    Dates and times with dates count from the first record of the individual.

    Raises:
        TableError: A time cannot be read, or clock times go backwards without a date.
    """
    if unit not in UNITS:
        raise TableError(f"time_unit={unit!r}.", f"one of {list(UNITS)}.", "correct `time_unit`.")
    column = table.frame["TIME"]
    blank = column.map(_is_blank).to_numpy(dtype=bool)
    table.refuse(blank, "TIME", "a time in every row.", "fill in the time.")
    date = next((name for name in DATES if name in table), None)
    if date is None:
        clocks = column.map(_clock).notna().to_numpy(dtype=bool)
        if clocks.any():
            mend = "correct the entry; clock times have to stand in all rows."
            table.refuse(~clocks, "TIME", "a clock time (hh:mm), as in other rows.", mend)
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
        "correct the entry; clock times and dates have to stand in all rows.",
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
            raise table.wrong(
                row,
                "TIME",
                "clock times that do not go backwards where there is no date.",
                "add a column DATE, or give times in hours since the first record.",
            )
        last[name] = now
    return np.asarray(seconds / UNITS[unit], dtype=float)


def _calendar(table: Table, ids: list[str], unit: str, date: str | None) -> Numbers:
    if date is None:
        stamps = pd.to_datetime(table.frame["TIME"], errors="coerce", format="ISO8601")
        table.refuse(
            stamps.isna().to_numpy(dtype=bool),
            "TIME",
            "numbers, clock times (hh:mm), or dates with times (yyyy-mm-dd hh:mm) in all rows.",
            "correct the entry.",
        )
        seconds = (stamps - pd.Timestamp(0)).dt.total_seconds().to_numpy(dtype=float)
    else:
        seconds = _days(table, date) * 86400.0 + _time_of_day(table)
    first: dict[str, float] = {}
    for name, now in zip(ids, seconds.tolist(), strict=True):
        first[name] = min(first.get(name, np.inf), now)
    origin = np.array([first[name] for name in ids])
    return np.asarray((seconds - origin) / UNITS[unit], dtype=float)


def _days(table: Table, name: str) -> Numbers:
    column = table.frame[name]
    blank = column.map(_is_blank).to_numpy(dtype=bool)
    table.refuse(blank, name, "a date in every row.", "fill in the date.")
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    if np.isfinite(numbers).all():
        return numbers
    text = column.astype(str).str.strip().str.replace(r"[-.]", "/", regex=True)
    found = pd.to_datetime(text, errors="coerce", format="%Y/%m/%d")
    found = found.fillna(pd.to_datetime(text, errors="coerce", format=DATES[name]))
    table.refuse(
        found.isna().to_numpy(dtype=bool),
        name,
        f"a day number, yyyy-mm-dd or {DATES[name]}.",
        "correct the date.",
    )
    return np.asarray((found - pd.Timestamp(0)).dt.days, dtype=float)


def _time_of_day(table: Table) -> Numbers:
    """Seconds; plain numbers are hours."""
    column = table.frame["TIME"]
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
    clocks = column.map(_clock).to_numpy(dtype=float, na_value=np.nan)
    found = np.where(np.isnan(clocks), numbers * 3600.0, clocks)
    table.refuse(
        ~np.isfinite(found), "TIME", "a clock time (hh:mm) or hours.", "correct the entry."
    )
    return found


@dataclass(frozen=True, eq=False)
class Columns:
    r"""The checked columns, one entry per row.

    Args:
        time: Times in the unit of the data.
        number: The numeric columns by name.
        is_observation: EVID 0.
        is_dose: EVID 1 or 4.
        is_reset: EVID 3 or 4.
    """

    time: Numbers
    number: dict[str, Numbers]
    is_observation: Mask
    is_dose: Mask
    is_reset: Mask


def read_columns(table: Table, ids: list[str], unit: str) -> Columns:
    r"""Parse and check all columns.

    Raises:
        TableError: An entry cannot be read, or contradicts another one of its row.
    """
    number = {name: table.numbers(name, default) for name, default in NUMERIC.items()}
    given, constant = number["AMT"] > 0, (number["SS"] > 0) & (number["RATE"] > 0)
    number["EVID"] = np.where(np.isnan(number["EVID"]), given | constant, number["EVID"])
    _check_allowed(table, number)
    evid = number["EVID"]
    observation, dose = evid == 0, (evid == 1) | (evid == 4)
    _check_doses(table, number, dose)
    _check_observations(table, number, observation)
    return Columns(times(table, ids, unit), number, observation, dose, (evid == 3) | (evid == 4))


def _check_allowed(table: Table, number: dict[str, Numbers]) -> None:
    """Entries that are wrong on their own."""
    rules: list[tuple[str, Callable[[Numbers], Mask], str]] = [
        ("EVID", lambda x: ~np.isin(x, (0, 1, 2, 3, 4)), "0, 1, 2, 3 or 4."),
        ("MDV", lambda x: ~np.isin(x, (0, 1)), "0 or 1."),
        ("SS", lambda x: ~np.isin(x, (0, 1, 2)), "0, 1 or 2."),
        ("CENS", lambda x: ~np.isin(x, (-1, 0, 1)), "-1, 0 or 1."),
        ("BLQ", lambda x: ~np.isin(x, (0, 1)), "0 or 1."),
        ("AMT", lambda x: ~(np.isfinite(x) & (x >= 0)), "a finite amount, 0 or more."),
        ("II", lambda x: ~(np.isfinite(x) & (x >= 0)), "a finite interval, 0 or more."),
        ("ADDL", lambda x: ~(np.isfinite(x) & (x >= 0) & (x % 1 == 0)), "a whole number."),
        (
            "RATE",
            lambda x: ~(np.isfinite(x) & ((x >= 0) | (x == -1) | (x == -2))),
            "0 or more, -1 (rate of the model) or -2 (duration of the model).",
        ),
        (
            "CMT",
            lambda x: ~(np.isfinite(x) & (x >= 1) & (x % 1 == 0)),
            "1, 2, ...; compartments cannot be turned off or be the default one (0).",
        ),
        ("DV", np.isinf, "a finite value, or none."),
        ("LIMIT", np.isinf, "a finite value, or none."),
        ("LLOQ", np.isinf, "a finite value, or none."),
        ("ULOQ", np.isinf, "a finite value, or none."),
    ]
    for name, bad, expected in rules:
        if name in table or name == "EVID":
            table.refuse(bad(number[name]), name, expected, "correct the entry.")


def _check_doses(table: Table, number: dict[str, Numbers], dose: Mask) -> None:
    amount, rate, interval = number["AMT"], number["RATE"], number["II"]
    steady, additional, evid = number["SS"], number["ADDL"], number["EVID"]
    constant = dose & (steady > 0) & (amount == 0) & (rate > 0)
    checks = [
        (dose & (amount == 0) & ~constant, "AMT", "an amount for a dose (EVID 1 or 4)."),
        (~dose & (amount > 0), "AMT", "no amount: the row is no dose (EVID 0, 2 or 3)."),
        (~dose & (rate != 0), "RATE", "0: the row is no dose."),
        (~dose & (steady > 0), "SS", "0: the row is no dose."),
        (~dose & (additional > 0), "ADDL", "0: the row is no dose."),
        ((steady > 0) & ~constant & (interval <= 0), "II", "an interval for a steady state."),
        ((additional > 0) & (interval <= 0), "II", "an interval for additional doses."),
        (constant & (additional > 0), "ADDL", "0: a constant infusion is not repeated."),
        ((evid == 4) & (steady > 0), "SS", "0 with EVID 4, unless SS 1 resets by itself."),
    ]
    # SS 1 forgets the past anyway; EVID 4 with it is common and says the same.
    checks[-1] = ((evid == 4) & (steady == 2), "SS", "0 or 1 with EVID 4, which forgets the past.")
    for where, column, expected in checks:
        table.refuse(where, column, expected, "correct the row.")


def _check_observations(table: Table, number: dict[str, Numbers], observation: Mask) -> None:
    value, limit, low = number["DV"], number["LIMIT"], number["LLOQ"]
    recorded = observation & (number["MDV"] == 0)
    below, above = recorded & (number["CENS"] == 1), recorded & (number["CENS"] == -1)
    blq = recorded & (number["BLQ"] == 1)
    free = recorded & ~below & ~above & ~blq & ~np.isnan(value)
    limit_of = np.where(np.isnan(low), value, low)
    checks = [
        (below & np.isnan(value), "DV", "the limit of quantification where CENS is 1."),
        (above & np.isnan(value), "DV", "the upper limit where CENS is -1."),
        (blq & np.isnan(limit_of), "LLOQ", "a limit (LLOQ, or the value) where BLQ is 1."),
        (below & (limit >= value), "LIMIT", "a lower bound below the value where CENS is 1."),
        (blq & (limit >= limit_of), "LIMIT", "a lower bound below the limit of quantification."),
        (above & ~np.isnan(limit), "LIMIT", "no lower bound where CENS is -1."),
        (blq & (number["CENS"] == -1), "CENS", "0 or 1 where BLQ is 1."),
        (free & (value < low), "DV", "a value at or above its LLOQ, or CENS 1."),
        (free & (value > number["ULOQ"]), "DV", "a value at or below its ULOQ, or CENS -1."),
        (below & (low > value), "LLOQ", "the value where CENS is 1."),
    ]
    for where, column, expected in checks:
        table.refuse(where, column, expected, "correct the row, or set MDV to 1.")
