r"""Reads a long table as a cohort.

The table has one row per event. Columns (names in capitals or small letters):

======================  ============================================================================
ID                      individual, any label
TIME                    numbers; or clock times (hh:mm), dates with times (yyyy-mm-dd hh:mm), or
                        clock times with a column DATE (mm/dd/yyyy), DAT1, DAT2, DAT3
DV                      observation
EVID                    0 observation, 1 dose, 2 other (covariates only), 3 reset, 4 reset and dose
AMT, RATE, CMT          amount, rate (-1 or -2: the model gives rate or duration), compartment
II, ADDL, SS            interval, additional doses, steady state (1, 2)
MDV                     1: the value was not recorded
DVID                    endpoint
CENS, LIMIT             1: below DV (above LIMIT, if given); -1: above DV
BLQ, LLOQ, ULOQ         1: below LLOQ (or DV); limits of quantification
OCC                     occasion
L2                      ignored, which is logged
======================  ============================================================================
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...cohort import Cohort, Doses, Series
from ...errors import TableError
from .columns import Columns, read_columns
from .endpoints import Rows, endpoint_rows, filled, padded, read_series
from .table_source import LOG, Numbers, Table, identifiers, load


def read_table(
    table: str | Path | pd.DataFrame,
    *,
    series: str | Mapping[object, str] = "dv",
    covariates: Sequence[str] = (),
    time_varying: Sequence[str] = (),
    endpoint: str = "DVID",
    time_unit: str = "h",
) -> Cohort:
    r"""Read a cohort from a NONMEM-style long table.

    Additional doses (ADDL) are written out as doses. Censored values are recorded as their limit;
    the limits are in ``cohort.time_varying`` as ``<series>_low``, ``<series>_high`` and
    ``<series>_floor``, for :class:`~pyro_amortized.nlme.censored_distributions.Censored`. The
    column OCC becomes
    ``cohort.time_varying["OCC"]``. An observation in a row before a dose of the same time is
    not affected by this dose: its time is decreased by some units in the last place. Ignored
    columns, values that are carried forward and sorted rows are logged under
    ``pyro_amortized.nlme``.

    Args:
        table: Path of a CSV file (lines that start with ``#`` are comments, ``.`` is a missing
            value), or a DataFrame.
        series: Name of the observations in the cohort; or, with several endpoints, a name for each
            value of the endpoint's column. Endpoints without a name are called
            ``<series>_<endpoint>``.
        covariates: Columns that are covariates with one value per individual; they keep the name
            given here.
        time_varying: Columns that are covariates that vary over time. The last value is carried
            forward, and the first one back.
        endpoint: Column that distinguishes the endpoints, if there is one: DVID, or for instance
            CMT.
        time_unit: Unit of the times made from clock times and dates: "min", "h" or "d".

    Returns:
        The cohort in float64, individuals in the order of their first row, rows sorted by time
        (rows of equal time keep their order), padded to the same number of times and doses.

    Raises:
        TableError: A column is missing, an entry cannot be read, or it contradicts another entry.
            The message names the row and the column.

    Example:
        >>> frame = pd.DataFrame({"ID": [1, 1, 1], "TIME": [0, 1, 2], "DV": [None, 4.2, None],
        ...                       "AMT": [100, None, None], "EVID": [1, 0, 0]})
        >>> cohort = read_table(frame, series="concentration")
        >>> cohort["concentration"].observed
        tensor([[ True, False]])
    """
    _check_lists(covariates=covariates, time_varying=time_varying)
    loaded = load(table)
    ids = identifiers(loaded)
    columns = read_columns(loaded, ids, time_unit)
    order = list(dict.fromkeys(ids))
    where = np.array(ids)
    rows = [np.flatnonzero(where == name) for name in order]
    _check_restarts(loaded, columns, rows, order)
    rows = [r[np.argsort(columns.time[r], kind="stable")] for r in rows]
    _log_surprises(loaded, columns, rows, ids)
    shifted = _record_order(columns, rows)
    doses = _doses(columns, rows) if (columns.is_dose | columns.is_reset).any() else None
    series_by_name: dict[str, Series] = {}
    varying = {name: _varying(loaded, name, shifted, rows, order) for name in time_varying}
    if "OCC" in loaded:
        varying["OCC"] = _varying(loaded, "OCC", shifted, rows, order)
    for name, is_endpoint in endpoint_rows(loaded, columns, series, endpoint).items():
        part = [r[is_endpoint[r]] for r in rows]
        first = [shifted[r[0]] for r in rows]
        series_by_name[name], limits = read_series(columns, shifted, part, first)
        varying |= {f"{name}_{kind}": s for kind, s in limits.items()}
    return Cohort(
        series_by_name,
        doses,
        {name: _covariate(loaded, name, rows, order) for name in covariates},
        tuple(order),
        varying,
    )


def _check_lists(**arguments: Sequence[str]) -> None:
    for argument, names in arguments.items():
        if isinstance(names, str):
            raise TableError(
                f"`{argument}` is the string {names!r}.",
                "a list of names of columns.",
                f"pass `{argument}=[{names!r}]`.",
            )


def _check_restarts(table: Table, columns: Columns, rows: Rows, order: list[str]) -> None:
    for r, name in zip(rows, order, strict=True):
        back = np.flatnonzero(np.diff(columns.time[r]) < 0) + 1
        if len(back) and columns.is_reset[r].any():
            raise table.error(
                int(r[back[0]]),
                "TIME",
                f"times of individual {name} that do not decrease, because there are resets.",
                "continue the time after a reset (EVID 3 or 4) instead of starting again at 0.",
            )


def _log_surprises(table: Table, columns: Columns, rows: Rows, ids: list[str]) -> None:
    """Log what a user may not expect."""
    if "L2" in table:
        LOG.warning("The column L2 is ignored: residual errors are taken as independent.")
    unsorted = [ids[r[0]] for r in rows if (np.diff(r) < 0).any()]
    if unsorted:
        LOG.warning("Rows of individuals %s were not sorted by time.", unsorted[:10])
    unobserved = [ids[r[0]] for r in rows if not columns.is_observation[r].any()]
    if unobserved:
        LOG.warning("Individuals %s have no observation record.", unobserved[:10])
    values = columns.number["DV"]
    ignored = ~columns.is_observation & ~np.isnan(values) & (values != 0)
    if ignored.any():
        LOG.warning(
            "The DV of %d rows that are not observations is ignored, first in row %s.",
            int(ignored.sum()),
            table.labels[np.flatnonzero(ignored)[0]],
        )


def _record_order(columns: Columns, rows: Rows) -> Numbers:
    """Times that are decreased by units in the last place where an observation is in a row before a
    dose of the same time.
    """
    shifted = columns.time.copy()
    given = columns.is_dose | columns.is_reset
    for r in rows:
        time = columns.time[r]
        if not (np.diff(time) == 0).any():
            continue
        count, later_dose = 0, False
        for j in range(len(r) - 1, -1, -1):
            if j == len(r) - 1 or time[j] != time[j + 1]:
                count, later_dose = 0, False
            if given[r[j]]:
                later_dose = True
            elif later_dose:
                count, later_dose = count + 1, False
            shifted[r[j]] -= count * np.finfo(float).eps * max(1.0, abs(time[j]))
    return shifted


def _doses(columns: Columns, rows: Rows) -> Doses:
    number, records = columns.number, []
    for r in rows:
        events: list[tuple[float, ...]] = []
        for row in r[(columns.is_dose | columns.is_reset)[r]]:
            fields = [number[n][row] for n in ("AMT", "RATE", "CMT", "II", "SS")]
            reset = float(columns.is_reset[row])
            amount, rate, compartment, interval, steady = fields
            events.append((columns.time[row], amount, rate, compartment, interval, steady, reset))
            for k in range(1, int(number["ADDL"][row]) + 1):
                events.append(
                    (columns.time[row] + k * interval, amount, rate, compartment, 0.0, 0.0, 0.0)
                )
        events.sort(key=lambda record: record[0])
        records.append(events)
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


def _varying(table: Table, name: str, time: Numbers, rows: Rows, order: list[str]) -> Series:
    _check_column(table, name, "time_varying")
    values = table.numbers(name)
    for r, who in zip(rows, order, strict=True):
        if np.isnan(values[r]).all():
            raise table.error(
                int(r[0]), name, f"at least one value for individual {who}.", "fill one in."
            )
    blank = int(np.isnan(values).sum())
    if blank:
        LOG.warning(
            "%d missing values of %s were carried forward (the first one back).", blank, name
        )
    width = max(len(r) for r in rows)
    times = torch.stack([filled(time[r], width, time[r][-1]) for r in rows])
    return Series(times, padded([values[r] for r in rows], width))


def _covariate(table: Table, name: str, rows: Rows, order: list[str]) -> Tensor:
    _check_column(table, name, "covariates")
    values = table.numbers(name)
    for r, who in zip(rows, order, strict=True):
        changed = np.flatnonzero(~(values[r] == values[r[0]]))
        if len(changed):
            raise table.error(
                int(r[changed[0]]),
                name,
                f"one value for individual {who}, whose first value is {values[r[0]]}.",
                f"use the baseline value, or pass `time_varying=[{name!r}]`.",
            )
    return torch.tensor([values[r[0]] for r in rows], dtype=torch.float64)


def _check_column(table: Table, name: str, argument: str) -> None:
    if name not in table:
        raise TableError(
            f"The table has no column {name!r} (it has {list(table.frame.columns)}).",
            "a column for every covariate.",
            f"check the spelling in `{argument}=`.",
        )
