"""Times that start again within an individual: after a reset, at a dose, at an occasion."""

import numpy as np

from .columns import Columns
from .endpoints import IndividualRows
from .table_source import Table


def check_restarts(table: Table, columns: Columns, rows: IndividualRows, order: list[str]) -> None:
    r"""Raise where times start again. Sorted by time, the records would then be mixed up.

    Args:
        table: The table.
        columns: Its columns.
        rows: The rows of each individual.
        order: The individuals.

    Raises:
        TableError: Times decrease in the file, and the individual has resets; or they go back to
            the time of an earlier dose for another dose, as the time after each dose does, or one
            clock for each occasion.
    """
    for unsorted, name in zip(rows, order, strict=True):
        r = np.sort(unsorted)
        back = np.flatnonzero(np.diff(columns.time[r]) < 0) + 1
        if len(back) and columns.is_reset[r].any():
            raise table.error(
                int(r[back[0]]),
                "TIME",
                f"times of individual {name} that do not decrease, because there are resets.",
                "continue the time after a reset (EVID 3 or 4) instead of starting again at 0.",
            )
        if len(back):
            _check_doses(table, columns, r, name)


def _check_doses(table: Table, columns: Columns, rows: np.ndarray, name: str) -> None:
    """Raise where a dose stands behind later records of a dose of the same time and compartment, in
    rows that follow each other (an ID that comes back is another matter, and is logged).
    """
    time, compartment = columns.time, columns.number["CMT"]
    first: dict[tuple[float, float], int] = {}
    for row in rows[columns.is_dose[rows]].tolist():
        key = (float(time[row]), float(compartment[row]))
        begin = first.setdefault(key, row)
        between = rows[(rows > begin) & (rows < row)]
        together = len(between) == row - begin - 1
        if together and (time[between] > key[0]).any():
            raise table.error(
                row,
                "TIME",
                f"a time after those of the rows before; individual {name} has a dose of the same "
                f"time in row {table.labels[begin]}, and later records follow it.",
                "write the time since the first dose of the individual, if TIME is the time after "
                "each dose or starts again at each occasion; give every individual a label of its "
                "own, if several have the same; sort the rows by time, if the two doses are given "
                "together.",
            )
