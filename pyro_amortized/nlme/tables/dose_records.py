"""The doses of a long table, with the additional ones written out."""

import numpy as np
import torch

from ...cohort import Doses
from .columns import Columns
from .endpoints import IndividualRows

# Difference of two times, relative to the larger and at least to one unit, below which they are the
# same: the time of an additional dose is computed, and that of a record was rounded when it was
# written. Multiples of 0.333 days differ from the decimal numbers by 1e-16.
SAME_TIME = 1e-9


def read_doses(columns: Columns, rows: IndividualRows) -> Doses:
    """The doses of all individuals.

    Additional doses at the time of a record get exactly this time, so that an observation then sees
    them. A reset (EVID 3 or 4) cancels the additional doses that are pending.
    """
    records = [_events(columns, r) for r in rows]
    width = max(len(events) for events in records)
    table = np.zeros((len(rows), width, 8))
    table[..., 3] = 1.0
    for i, events in enumerate(records):
        if events:
            table[i, : len(events), :7] = events
            table[i, : len(events), 7] = 1.0
    names = ("time", "amount", "rate", "compartment", "interval", "steady", "reset", "given")
    column = dict(zip(names, torch.from_numpy(table).unbind(-1), strict=True))
    return Doses(
        column["time"],
        column["amount"],
        compartment=column["compartment"].long(),
        given=column["given"].bool(),
        rates=column["rate"],
        intervals=torch.where(column["steady"] > 0, column["interval"], 0.0),
        steady_state=column["steady"].long(),
        reset=column["reset"].bool(),
    )


def _events(columns: Columns, rows: np.ndarray) -> list[tuple[float, ...]]:
    """The events of one individual in the order of their times; in rows of equal times, the order
    of the table.
    """
    number, time = columns.number, columns.time
    events: list[tuple[float, ...]] = []
    for row in rows[(columns.is_dose | columns.is_reset)[rows]]:
        fields = [float(number[n][row]) for n in ("AMT", "RATE", "CMT", "II", "SS")]
        amount, rate, compartment, interval, steady = fields
        begin, reset = float(time[row]), float(columns.is_reset[row])
        events.append((begin, amount, rate, compartment, interval, steady, reset))
        later = additional_times(columns, rows, row)
        events += [(float(t), amount, rate, compartment, 0.0, 0.0, 0.0) for t in later]
    events.sort(key=lambda event: event[0])
    return events


def additional_times(columns: Columns, rows: np.ndarray, row: int) -> np.ndarray:
    """The times of the additional doses of one row of an individual, without those that a reset
    cancels.

    Args:
        columns: The columns.
        rows: The rows of the individual.
        row: The row of the dose.
    """
    number, time = columns.number, columns.time
    begin = float(time[row])
    count = np.arange(1.0, int(number["ADDL"][row]) + 1)
    later = _on_records(begin + count * float(number["II"][row]), time[rows])
    resets = time[rows[columns.is_reset[rows]]]
    cancelled = resets[resets > begin]
    return later[later < cancelled.min()] if len(cancelled) else later


def _on_records(times: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Times, replaced by that of a record where the two are the same but for rounding."""
    if len(times) == 0:
        return times
    ordered = np.unique(recorded)
    place = np.searchsorted(ordered, times).clip(1, max(1, len(ordered) - 1))
    nearest = ordered[np.minimum(place, len(ordered) - 1)]
    before = ordered[place - 1]
    nearest = np.where(np.abs(before - times) <= np.abs(nearest - times), before, nearest)
    same = np.abs(nearest - times) <= SAME_TIME * np.maximum(1.0, np.abs(times))
    return np.where(same, nearest, times)
