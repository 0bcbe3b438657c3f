"""What a user may not expect of a table, in the log: one line each."""

from collections.abc import Sequence

import numpy as np

from .columns import Columns
from .dose_records import additional_times
from .endpoints import IndividualRows
from .table_file import LOG
from .table_source import KNOWN, Numbers, Table

# Numbers that stand for a missing value in many files.
CODES = (-9.0, -99.0, -999.0, -9999.0)


def log_surprises(table: Table, columns: Columns, rows: IndividualRows, ids: list[str]) -> None:
    """Log what a user may not expect."""
    if "L2" in table:
        LOG.warning("The column L2 is ignored: residual errors are taken as independent.")
    last: dict[str, int] = {}
    back: dict[str, str] = {}
    for row, name in enumerate(ids):
        if name in last and last[name] != row - 1:
            back.setdefault(name, str(table.labels[row]))
        last[name] = row
    if back:
        LOG.warning(
            "Individuals come back after others (%s): all rows of one ID are read as one "
            "individual, while NONMEM starts a new one.",
            ", ".join(f"{name} in row {label}" for name, label in list(back.items())[:10]),
        )
    unsorted = [ids[r[0]] for r in rows if (np.diff(r) < 0).any()]
    if unsorted:
        LOG.warning("Rows of individuals %s were not sorted by time.", unsorted[:10])
    _log_repeated(table, ids)
    unobserved = [ids[r[0]] for r in rows if not columns.is_observation[r].any()]
    if unobserved:
        LOG.warning("Individuals %s have no observation record.", unobserved[:10])
    values = columns.number["DV"]
    ignored = ~columns.is_observation & ~np.isnan(values) & (values != 0)
    if ignored.any():
        reason = "" if "EVID" in table else " (rows with an amount are doses, without EVID)"
        LOG.warning(
            "The DV of %d rows that are not observations is ignored%s, first in row %s.",
            int(ignored.sum()),
            reason,
            table.labels[np.flatnonzero(ignored)[0]],
        )
    _log_doses(table, columns, rows)
    recorded = columns.is_observation & (columns.number["MDV"] == 0)
    log_codes("DV", np.where(recorded, values, np.nan), ids)


def _log_doses(table: Table, columns: Columns, rows: IndividualRows) -> None:
    """Log doses that count twice, in a row and among the additional doses of another one, and
    intervals without additional doses or a steady state.
    """
    number, dose = columns.number, columns.is_dose
    again = [row for r in rows for row in _given_again(columns, r)]
    if again:
        LOG.warning(
            "%d doses are given in a row of their own and as additional doses (ADDL) of an earlier "
            "row; both count, first row %s.",
            len(again),
            table.labels[again[0]],
        )
    single = dose & (number["II"] > 0) & (number["ADDL"] == 0) & (number["SS"] == 0)
    if single.any():
        LOG.warning(
            "%d doses have an interval (II), but neither additional doses (ADDL) nor a steady "
            "state (SS): they are single doses, first in row %s.",
            int(single.sum()),
            table.labels[np.flatnonzero(single)[0]],
        )


def _given_again(columns: Columns, rows: np.ndarray) -> list[int]:
    """The rows of doses (EVID 1) of one individual at times of additional doses of another row."""
    number = columns.number
    doses = rows[number["EVID"][rows] == 1]
    found: list[int] = []
    for row in doses[number["ADDL"][doses] > 0]:
        same = number["CMT"][doses] == number["CMT"][row]
        times = additional_times(columns, rows, int(row))
        meets = same & (doses != row) & np.isin(columns.time[doses], times)
        found += doses[meets].tolist()
    return found


def _log_repeated(table: Table, ids: list[str]) -> None:
    """Log rows that occur twice: a dose counts twice, and so does an observation."""
    again = table.frame.duplicated().to_numpy()
    if again.any():
        who = list(dict.fromkeys(ids[i] for i in np.flatnonzero(again).tolist()))
        LOG.warning(
            "%d rows are the same as earlier ones in every column and count again, first row %s "
            "(individuals %s).",
            int(again.sum()),
            table.labels[np.flatnonzero(again)[0]],
            who[:10],
        )


def log_unused(table: Table, named: Sequence[str]) -> None:
    """Log the columns that nothing uses."""
    unused = [name for name in table.frame.columns if name not in KNOWN and name not in named]
    if "C" in table and "C" not in named:
        unused.append("C")
    if unused:
        LOG.warning("Columns that are not used: %s.", ", ".join(unused))


def log_codes(name: str, values: Numbers, owners: Sequence[str]) -> None:
    """Log values that may be codes of missing ones: -99 and the like, where all others are not
    negative.
    """
    is_code = np.isin(values, CODES)
    if is_code.any() and not (values[~is_code & ~np.isnan(values)] < 0).any():
        who = list(dict.fromkeys(owners[i] for i in np.flatnonzero(is_code).tolist()))
        LOG.warning(
            "%s is %g for individuals %s: is this the code of a missing value? Then use `.`, or an "
            "empty cell.",
            name,
            values[is_code][0],
            who[:10],
        )
