r"""Reads the text of a table: header, separator, comments, decimal mark.

The header is the first line with the names ID and one of TIME and DV, in capitals or small letters,
also behind a ``#`` or ``C``, the comment signs of NM-TRAN. Lines before it (titles, ``TABLE NO. 1``
of NONMEM's own tables) are skipped. Columns are separated by commas, semicolons, tabs, bars or
blanks, whichever the header has. All cells are kept as text, so that labels such as 007 and 101.10
stay what they are; a ``#`` inside a cell is text.
"""

import csv
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...errors import TableError

LOG = logging.getLogger("pyro_amortized.nlme")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
# What pandas reads as missing, and the dot.
MISSING = frozenset(
    [
        ".",
        "NA",
        "N/A",
        "n/a",
        "#N/A",
        "#NA",
        "<NA>",
        "NaN",
        "-NaN",
        "nan",
        "-nan",
        "NULL",
        "null",
        "None",
        "1.#IND",
        "1.#QNAN",
        "-1.#IND",
        "-1.#QNAN",
    ]
) | {""}
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
DECIMAL_POINT = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")


class _Header(NamedTuple):
    """The names of the columns, the separator, and the number of lines up to and with the header;
    ``line`` is its text, which NONMEM's own tables repeat.
    """

    names: list[str]
    separator: str
    num_lines: int
    line: str


def read_file(path: Path, columns: Sequence[str] | None = None) -> tuple[pd.DataFrame, pd.Index]:
    r"""The rows of a file as text, and the number of the line of each.

    Args:
        path: The file.
        columns: Names of the columns of a file without a header.

    Raises:
        TableError: The file cannot be read, has no header, or a line has a different number of
            cells.
    """
    lines = _lines(path)
    header = _header(path, lines) if columns is None else _given(lines, columns)
    rows, labels = _rows(path, lines, header)
    frame = pd.DataFrame(rows, columns=header.names, dtype=object)
    unnamed = [j for j, name in enumerate(header.names) if not name]
    if unnamed[:1] == [0] and not frame.iloc[:, 0].duplicated().any():
        LOG.warning("The first column of %s, which has no name, is not used: names of rows.", path)
        unnamed = unnamed[1:]
    if any(frame.iloc[:, j].notna().any() for j in unnamed):
        raise TableError(
            f"Column {unnamed[0] + 1} of {path} has values and no name.",
            "a name in the header for every column.",
            "name the column, or remove it.",
        )
    frame = frame.loc[:, [bool(name) for name in header.names]]
    if header.separator != ",":
        frame = _with_decimal_points(path, frame)
    return frame, pd.Index(labels)


def _rows(
    path: Path, lines: list[str], header: _Header
) -> tuple[list[list[str | float]], list[int]]:
    """The cells of every row, and the number of its line."""
    width = len(header.names)
    numbers: list[int] = []
    rows: list[list[str | float]] = []
    labels: list[int] = []
    comments: list[int] = []
    repeated = [name.upper() for name in header.names]
    for cells in _records(lines, header, numbers):
        if len(cells) == width + 1 and cells[0].upper() == "C":  # before a complete row
            comments.append(numbers[-1])
            continue
        if not any(cells) or [x.upper() for x in cells] == repeated:
            continue  # empty rows at the end of a worksheet; a header that occurs again
        if len(cells) > width and not any(cells[width:]):
            cells = cells[:width]
        if len(cells) != width:
            raise _wrong_width(path, numbers[-1], len(cells), header)
        rows.append([np.nan if x in MISSING else x for x in cells])
        labels.append(numbers[-1])
    if comments:
        text = "%d lines are left out, because a C comments them out: %s."
        LOG.warning(text, len(comments), comments[:10])
    return rows, labels


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise TableError(
            f"There is no file {path}.", "the path of a text file.", "check the path."
        ) from error
    except OSError as error:
        raise TableError(
            f"{path} cannot be read: {error}.", "a text file.", "check the path."
        ) from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    if "\0" in text:
        raise TableError(
            f"{path} contains binary data.",
            "a text file (a worksheet must be saved as CSV).",
            "export the table as a text file.",
        )
    return text.rstrip("\x1a").splitlines()  # some programs of DOS end a file with this sign


def _header(path: Path, lines: list[str]) -> _Header:
    """The header, and what separates its names."""
    first: tuple[int, str] | None = None
    for number, line in enumerate(lines):
        text = line.strip()
        if not text:
            continue
        for separator in SEPARATORS:
            names = _names(text, separator)
            known = {name.upper() for name in names}
            if "ID" in known and known & {"TIME", "DV"}:
                if number and not all(_is_comment(x) for x in lines[:number]):
                    LOG.warning("%d lines before the header of %s were skipped.", number, path)
                return _without_marker(_Header(names, separator, number + 1, text), lines)
        if first is None and not _is_comment(line):
            first = number, text
    if first is None:
        fix = "export the table again, or pass the path of another file."
        raise TableError(f"{path} has no rows.", "a header and one row per event.", fix)
    number, text = first
    cells = _names(text, next((s for s in SEPARATORS if s in text), ","))
    if all(_is_number(x) for x in cells):
        raise TableError(
            f"{path} has no header: its first line is {text[:60]!r}.",
            "a header with the names of the columns, among them ID, TIME and DV.",
            f"pass the names of the {len(cells)} columns, `columns=['ID', 'TIME', ...]`.",
        )
    raise TableError(
        f"No line of {path} has the names ID, TIME and DV; its first line is {text[:60]!r}.",
        "a header with the columns ID, TIME and DV, separated by commas, semicolons, tabs, bars or "
        "blanks.",
        "rename the columns in the file (TIME, not Time (h) or 'TIME'), or read it into a "
        "DataFrame and pass `frame.rename(columns={'Subject': 'ID'})`; a table with one column for "
        "each time is made long first (`frame.melt`); pass `columns=` for a file without a header.",
    )


def _given(lines: list[str], columns: Sequence[str]) -> _Header:
    """A header that the user gives; the separator is one that divides the first row so."""
    data = [x for x in lines if x.strip() and not _is_comment(x)]
    counts = {s: len(_names(data[0].strip(), s)) if data else 0 for s in SEPARATORS}
    separator = next((s for s, count in counts.items() if count == len(columns)), "")
    if not separator:
        found = max(counts.values())
        raise TableError(
            f"`columns` has {len(columns)} names, and the first line of the table {found} cells.",
            "one name for every column of a file without a header.",
            "correct `columns=`.",
        )
    return _Header(list(columns), separator, 0, "")


def _names(text: str, separator: str) -> list[str]:
    """The cells of a header, without a comment sign before the first."""
    text = text.lstrip("#").strip()
    cells = [x.strip() for x in next(_cells([text], separator), [])]
    if cells and cells[0].upper() == "CID" and "ID" not in {x.upper() for x in cells}:
        cells[0] = cells[0][1:]  # the comment sign C of NM-TRAN
    return cells


def _without_marker(header: _Header, lines: list[str]) -> _Header:
    """Without a C that only marks the header, so that it has one name more than the rows cells."""
    data = next((x for x in lines[header.num_lines :] if x.strip() and not _is_comment(x)), None)
    if data is None or header.names[0].upper() != "C":
        return header
    num_cells = len(next(_cells([data.strip()], header.separator), []))
    return header._replace(names=header.names[1:]) if num_cells < len(header.names) else header


def _records(lines: list[str], header: _Header, numbers: list[int]) -> Iterator[list[str]]:
    """The cells of every row; the number of its line is appended to ``numbers`` before."""

    def kept() -> Iterator[str]:
        for number, line in enumerate(lines[header.num_lines :], header.num_lines + 1):
            text = line.strip()
            if text and not _is_marked(text) and text != header.line:
                numbers.append(number)
                yield text if header.separator == " " else line

    for cells in _cells(kept(), header.separator):
        yield [x.strip() for x in cells]


def _cells(lines: Iterator[str] | list[str], separator: str) -> Iterator[list[str]]:
    if separator == " ":
        lines = (x.replace("\t", " ") for x in lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=separator in ", ;|")


def _is_comment(line: str) -> bool:
    """What may stand before a header: nothing, marked lines, and lines with C and a blank."""
    text = line.strip()
    return not text or _is_marked(text) or re.match(r"[Cc](\s|$)", text) is not None


def _is_marked(text: str) -> bool:
    """Lines that start with ``#``, and titles of NONMEM's own tables. A C may be a label."""
    return text.startswith("#") or text.upper().startswith("TABLE NO")


def _is_number(text: str) -> bool:
    if text in MISSING:
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True


def _wrong_width(path: Path, number: int, num_cells: int, header: _Header) -> TableError:
    width = len(header.names)
    fix = "put values with commas in quotation marks"
    if header.separator == " ":
        fix = "write a dot for a missing value"
    if num_cells == width + 1:
        fix += "; leave out the names of rows (`row.names=FALSE` in R)"
    return TableError(
        f"Line {number} of {path} has {num_cells} cells, and the header has {width} names.",
        f"the same number of cells in every line, separated by {SEPARATORS[header.separator]}.",
        f"correct the line; {fix}.",
    )


def _with_decimal_points(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of a table without commas between the columns, decimal commas as points."""
    cells = [x for x in frame.to_numpy().ravel().tolist() if isinstance(x, str)]
    comma = next((x for x in cells if DECIMAL_COMMA.fullmatch(x)), None)
    point = next((x for x in cells if DECIMAL_POINT.fullmatch(x)), None)
    if comma is None:
        return frame
    if point is not None:
        raise TableError(
            f"{path} has numbers with a decimal comma ({comma}) and with a decimal point "
            f"({point}).",
            "one decimal mark.",
            "write all numbers with a decimal point.",
        )
    LOG.warning("The numbers of %s are read with a decimal comma.", path)
    return frame.map(
        lambda x: x.replace(",", ".") if isinstance(x, str) and DECIMAL_COMMA.fullmatch(x) else x
    )
