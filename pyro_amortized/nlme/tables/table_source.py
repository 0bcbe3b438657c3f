r"""A long table from a file or a DataFrame, with errors that name row and column."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...errors import TableError
from ...runtime.arguments import check_is

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


@dataclass(frozen=True, eq=False)
class Table:
    r"""A loaded table.

    Args:
        frame: The rows; the names of known columns are in capitals.
        labels: Names of the rows in messages: lines of a file, or labels of a DataFrame.
    """

    frame: pd.DataFrame
    labels: pd.Index

    def __contains__(self, name: object) -> bool:
        return name in self.frame.columns

    def error(self, row: int, column: str, expected: str, fix: str) -> TableError:
        """The error about one entry."""
        entry = self.frame[column].iloc[row] if column in self else None
        entry = entry.item() if isinstance(entry, np.generic) else entry
        found = "is missing" if is_blank(entry) else f"is {entry!r}"
        return TableError(f"Row {self.labels[row]}, column {column} {found}.", expected, fix)

    def refuse(self, where: Mask, column: str, expected: str, fix: str) -> None:
        """Raise an error about the first row of a mask, if there is one."""
        if where.any():
            raise self.error(int(np.flatnonzero(where)[0]), column, expected, fix)

    def numbers(self, name: str, default: float = np.nan) -> Numbers:
        """A numeric column; empty cells get the default."""
        if name not in self:
            return np.full(len(self.frame), default)
        column = self.frame[name]
        parsed = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        blank = column.map(is_blank).to_numpy(dtype=bool)
        self.refuse(
            np.isnan(parsed) & ~blank,
            name,
            "a number (`.` or an empty cell for a missing value).",
            "correct the entry.",
        )
        return np.where(blank, default, parsed)


def load(table: str | Path | pd.DataFrame) -> Table:
    r"""Load a table.

    Raises:
        TableError: The file cannot be read, a required column is missing, a column occurs twice, or
            there is no row.
    """
    check_is("table", table, (str, Path, pd.DataFrame), "pass a path or a frame.", TableError)
    if isinstance(table, pd.DataFrame):
        frame = table.copy()
        labels = frame.index
    else:
        frame, labels = _from_file(Path(table))
    frame.columns = [c.upper() if c.upper() in KNOWN else c for c in map(str, frame.columns)]
    duplicates = frame.columns[frame.columns.duplicated()]
    if len(duplicates):
        raise TableError(
            f"The table has the column {duplicates[0]} more than once.",
            "every column once; capitals and small letters are not distinguished.",
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
    loaded = Table(frame.reset_index(drop=True), labels)
    blank = loaded.frame["ID"].map(is_blank).to_numpy(dtype=bool)
    loaded.refuse(blank, "ID", "an ID in every row.", "fill in the ID.")
    return loaded


def _from_file(path: Path) -> tuple[pd.DataFrame, pd.Index]:
    """The rows, and the number of the line of each."""
    try:
        if not path.exists():  # pandas would download an address
            raise FileNotFoundError(path)
        frame = pd.read_csv(path, comment="#", na_values=["."], skipinitialspace=True)
        text = path.read_text("utf-8").splitlines()
        lines = [n for n, x in enumerate(text, 1) if x.strip() and not x.startswith("#")][1:]
        return frame, pd.Index(lines if len(lines) == len(frame) else range(2, len(frame) + 2))
    except FileNotFoundError as error:
        raise TableError(
            f"There is no file {path}.", "the path of a CSV file.", "check the path."
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OSError) as error:
        raise TableError(
            f"{path} cannot be read: {str(error).strip().splitlines()[-1]}",
            "a CSV file with a header and the same number of cells in every line.",
            "correct the line; put values with commas in quotation marks.",
        ) from error


def is_blank(x: Any) -> bool:
    """Whether a cell is empty: no text, a dot, or NaN."""
    return x is None or (isinstance(x, str) and x.strip() in ("", ".")) or bool(pd.isna(x))


def identifiers(table: Table) -> list[str]:
    """IDs as text; whole numbers without a decimal point."""
    return [label(x) for x in table.frame["ID"]]


def label(x: Any) -> str:
    """An ID or category as text; whole numbers without a decimal point."""
    if isinstance(x, float | np.floating) and float(x).is_integer():
        return str(int(x))
    return str(x).strip()
