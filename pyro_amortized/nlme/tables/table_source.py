r"""A long table from a file or a DataFrame, with errors that name row and column."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...errors import TableError
from ...runtime.arguments import check_is
from .table_file import LOG, read_file

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
    "DUR": 0.0,
}
# Names of the same columns in rxode2, Monolix and many data sets.
ALIASES = {
    **{"BQL": "BLQ", "LOQ": "LLOQ", "TINF": "DUR"},
    **{"Y": "DV", "YTYPE": "DVID", "ADM": "CMT", "ADMID": "CMT"},
}
DATES = {"DATE": "%m/%d/%Y", "DAT1": "%d/%m/%Y", "DAT2": "%Y/%m/%d", "DAT3": "%Y/%d/%m"}
OTHERS = ("ID", "TIME", "DVID", "OCC", "L2", "C")
KNOWN = {*NUMERIC, *DATES, *OTHERS}
WHOLE = re.compile(r"[+-]?\d+(\.0*|\.?\d*[eE][+-]?\d+)")
NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
COMMA = re.compile(r"[+-]?\d+(,\d+)+(\.\d*)?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}([.,'\u2019\s]\d{3})+([.,]\d*)?")
NAMES_IN_PLACE_OF_NUMBERS = {
    "CMT": "number the compartments (1, 2, ...) in the order in which the model has them.",
    "EVID": "write 0 for an observation and 1 for a dose.",
    **dict.fromkeys(("BLQ", "CENS"), "write 1 for a value below the limit, and 0 otherwise."),
    "MDV": "write 1 for a value that was not recorded, and 0 otherwise.",
}
BELOW_LIMIT = re.compile(r"\s*(<|>|≤|≥|BLQ|BQL|BLOQ|LLOQ|BLD|ND\b)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Table:
    r"""A loaded table.

    Args:
        frame: The rows; the names of known columns are in capitals.
        labels: Names of the rows in messages: lines of a file, or labels of a DataFrame.
        categories: Categories that the columns of a DataFrame declare, also those of no row, in
            the declared order where it is one.
    """

    frame: pd.DataFrame
    labels: pd.Index
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        if column.dtype.kind in "cmM" or isinstance(column.dtype, pd.PeriodDtype):
            expected, fix = "numbers.", "take the real part, or leave the column out."
            if column.dtype.kind != "c":
                expected = "numbers, not dates or time differences."
                fix = f"make numbers of it, for instance days, `frame[{name!r}].dt.days`."
            raise self.error(0, name, expected, fix)
        parsed = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        blank = column.map(is_blank).to_numpy(dtype=bool)
        wrong = np.isnan(parsed) & ~blank
        limit = column.map(lambda x: BELOW_LIMIT.match(str(x)) is not None).to_numpy(dtype=bool)
        self.refuse(
            wrong & limit,
            name,
            "a number; a value beyond a limit of quantification is the limit and a flag.",
            "write the limit into DV and 1 into a column CENS (-1 above an upper limit), or the "
            "flag into BLQ and the limit into LLOQ; or set MDV to 1 to leave the value out.",
        )
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            expected = "a number (`.` or an empty cell for a missing value)."
            raise self.error(first, name, expected, _cure(str(column.iloc[first]), name, first))
        return np.where(blank, default, parsed)


def _cure(text: str, column: str, row: int) -> str:
    """What to do about a text in a column of numbers."""
    text = text.strip()
    if COMMA.fullmatch(text) or THOUSANDS.fullmatch(text):
        return (
            "write numbers with a decimal point and without separators of thousands; a decimal "
            "comma is read where semicolons, tabs or blanks separate the columns."
        )
    if row == 0 and column in ("DV", "AMT") and not any(x.isdigit() for x in text):
        return "correct the entry; a row of units below the header is taken out of the table."
    if not any(x.isdigit() for x in text):
        fix = "correct the entry; write `.` for a value that was not recorded."
        return NAMES_IN_PLACE_OF_NUMBERS.get(column, fix)
    return "correct the entry; numbers are written as -1.5 or 1.5E+02."


def load(
    table: str | Path | pd.DataFrame,
    columns: Sequence[str] | None = None,
    named: Sequence[str] = (),
) -> Table:
    r"""Load a table.

    Args:
        table: Path of a file, or a DataFrame.
        columns: Names of the columns of a file without a header.
        named: Columns that the user has named for another purpose, for instance as covariates.

    Raises:
        TableError: The file cannot be read, a required column is missing, a column occurs twice, or
            there is no row.
    """
    table = _pandas_frame(table)
    known: dict[str, tuple[str, ...]] = {}
    if isinstance(table, pd.DataFrame):
        frame, known = _of_frame(table, columns)
        labels = frame.index
    else:
        frame, labels = read_file(Path(table), columns)
    frame.columns = [c.upper() if c.upper() in KNOWN else c for c in map(str, frame.columns)]
    frame = frame.rename(columns=_aliases(list(frame.columns), named))
    duplicates = frame.columns[frame.columns.duplicated()]
    if len(duplicates):
        raise TableError(
            f"The table has the column {duplicates[0]} more than once.",
            "every column once; capitals and small letters are not distinguished.",
            "rename or drop one of them.",
        )
    _check_required(frame, table.index.names if isinstance(table, pd.DataFrame) else ())
    if not len(frame):
        fix = "check what was exported, or how the data frame was filtered."
        raise TableError("The table has no rows.", "one row per event.", fix)
    loaded = _without_comments(Table(frame.reset_index(drop=True), labels, known))
    blank = loaded.frame["ID"].map(is_blank).to_numpy(dtype=bool)
    fix = "fill in the ID; a row of units or of totals is taken out of the table."
    loaded.refuse(blank, "ID", "an ID in every row.", fix)
    return loaded


def _pandas_frame(table: Any) -> str | Path | pd.DataFrame:
    """A frame of another library (Polars, PyArrow) as one of pandas; paths as they are."""
    if hasattr(table, "to_pandas") and not isinstance(table, pd.DataFrame):
        try:
            table = table.to_pandas()
        except ImportError as error:  # Polars needs PyArrow for it
            raise TableError(
                f"The {type(table).__name__} cannot be made a frame of pandas: {error}",
                "a DataFrame of pandas, or one with `to_pandas()`.",
                "install what is missing, or pass `pandas.DataFrame(table.to_dict())`.",
            ) from error
    fix = "pass a path or a frame; `pandas.DataFrame(table)` makes one of a dictionary of columns."
    check_is("table", table, (str, Path, pd.DataFrame), fix, TableError)
    checked: str | Path | pd.DataFrame = table
    return checked


def _of_frame(
    table: pd.DataFrame, columns: Sequence[str] | None
) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
    """A DataFrame with categories as texts, and the categories that its columns declare."""
    if columns is not None:
        raise TableError(
            "`columns` is given together with a DataFrame.",
            "`columns` for a file without a header.",
            "rename the columns of the frame.",
        )
    if table.columns.nlevels > 1:
        raise TableError(
            f"The names of the columns have {table.columns.nlevels} levels.",
            "one name for each column.",
            "keep one of them, `frame.columns = frame.columns.get_level_values(-1)`.",
        )
    table = table.rename(columns=lambda name: name.strip() if isinstance(name, str) else name)
    kinds = {n: object for n, kind in table.dtypes.items() if str(kind) == "category"}
    known = {str(n): [*map(label, table[n].cat.categories)] for n in kinds}
    sorted_unless_ordered = {
        name: tuple(names if table[name].cat.ordered else in_order(names))
        for name, names in known.items()
    }
    return table.astype(kinds), sorted_unless_ordered


def _check_required(frame: pd.DataFrame, index: Sequence[Any]) -> None:
    """Check that the columns are there without which there is no table; ``index`` has the names of
    the index of a DataFrame.
    """
    for name in ("ID", "TIME", "DV"):
        if name not in frame.columns:
            raise TableError(
                f"The table has no column {name} (it has {list(frame.columns)}).",
                "the columns ID, TIME and DV.",
                "make columns of the index, `frame.reset_index()`."
                if name in map(str, index)
                else "rename your columns, for instance `frame.rename(columns={'Subject': 'ID'})`"
                + (
                    "; where values have no times, number them, "
                    "`frame.assign(TIME=frame.groupby('ID').cumcount())`."
                    if name == "TIME"
                    else "."
                ),
            )


def _aliases(columns: list[str], named: Sequence[str]) -> dict[str, str]:
    """New names of columns that have other names for a known purpose."""
    taken = {*columns, *named}
    found = {c: ALIASES[c.upper()] for c in columns if c.upper() in ALIASES and c not in named}
    found = {c: name for c, name in found.items() if name not in taken}
    for old, name in found.items():
        LOG.warning("The column %s is read as %s.", old, name)
    return found


def _without_comments(table: Table) -> Table:
    """Without the rows that a column C comments out, as NM-TRAN does with ``IGNORE=C``."""
    if "C" not in table:
        return table
    cells = table.frame["C"]
    filled = ~cells.map(is_blank).to_numpy(dtype=bool)
    is_text = pd.to_numeric(cells, errors="coerce").isna().to_numpy(dtype=bool)
    if not (filled & is_text).any() or (filled & ~is_text).any():
        return table  # numbers: another variable, which is then named as not used
    rows = [str(x) for x in table.labels[filled]]
    LOG.warning("%d rows are left out, because the column C marks them: %s.", len(rows), rows[:10])
    kept = np.flatnonzero(~filled)
    frame = table.frame.iloc[kept].reset_index(drop=True).drop(columns="C")
    return replace(table, frame=frame, labels=table.labels[kept])


def is_blank(x: Any) -> bool:
    """Whether a cell is empty: no text, a dot, NaN, or a missing value of pandas."""
    return x is None or (isinstance(x, str) and x.strip() in ("", ".")) or bool(pd.isna(x))


def identifiers(table: Table) -> list[str]:
    """IDs as text; whole numbers without a decimal point, and other text as it stands."""
    return [label(x) for x in table.frame["ID"]]


def in_order(names: Iterable[str]) -> list[str]:
    """Names in alphabetical order, numbers inside them by their size: 10 mg, 30 mg, 100 mg."""

    def key(name: str) -> tuple[list[tuple[bool, float, str]], str]:
        parts = NUMBER.split(name)  # every second part is a number
        found = [(k % 2 == 0, float(x) if k % 2 else 0.0, x) for k, x in enumerate(parts) if x]
        return found, name

    return sorted(names, key=key)


def label(x: Any) -> str:
    """An ID or category as text; whole numbers such as 1.0 and 1.0E+00 without a decimal point."""
    if isinstance(x, float | np.floating) and float(x).is_integer():
        return str(int(x))
    text = str(x).strip()
    if WHOLE.fullmatch(text) and float(text).is_integer():
        return str(int(float(text)))
    return text
