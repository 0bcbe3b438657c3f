r"""Reads a long table as a cohort.

The table has one row per event. Columns (names in capitals or small letters):

======================  ============================================================================
ID                      individual, any label
TIME                    numbers; or clock times (hh:mm), dates with times (yyyy-mm-dd hh:mm), or
                        clock times with a column DATE (mm/dd/yyyy), DAT1, DAT2, DAT3
DV (Y)                  observation
EVID                    0 observation, 1 dose, 2 other (covariates only), 3 reset, 4 reset and dose
AMT, RATE, CMT (ADM)    amount, rate (-1 or -2: the model gives rate or duration), compartment
DUR (TINF)              duration of an infusion
II, ADDL, SS            interval, additional doses, steady state (1, 2)
MDV                     1: the value was not recorded
DVID (YTYPE)            endpoint
CENS, LIMIT             1: below DV (above LIMIT, if given); -1: above DV
BLQ, LLOQ, ULOQ         1: below LLOQ (or DV); limits of quantification (also BQL, LOQ)
OCC                     occasion, a number or a label
C                       text: the row is a comment
L2                      ignored, which is logged
======================  ============================================================================
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ...cohort import Cohort, Series
from ...errors import TableError
from .columns import Columns, read_columns
from .constant_covariates import (
    check_column,
    check_no_texts,
    constant_covariate,
    incomplete_covariate,
    with_category_codes,
)
from .dose_records import read_doses
from .endpoints import IndividualRows, endpoint_rows, filled, padded, read_series
from .quantification_limits import QuantificationLimit, number_labels_of_occasions, with_limits
from .table_file import LOG
from .table_source import Numbers, Table, identifiers, load
from .table_surprises import log_codes, log_surprises, log_unused
from .time_restarts import check_restarts


def read_table(
    table: str | Path | pd.DataFrame,
    *,
    series: str | Mapping[object, str] = "dv",
    covariates: Sequence[str] = (),
    time_varying: Sequence[str] = (),
    incomplete: Sequence[str] = (),
    endpoint: str = "DVID",
    time_unit: str = "h",
    columns: Sequence[str] | None = None,
    lloq: QuantificationLimit = None,
    uloq: QuantificationLimit = None,
    categories: Mapping[str, Sequence[str]] | None = None,
) -> Cohort:
    r"""Read a cohort from a NONMEM-style long table.

    Additional doses (ADDL) are written out as doses; a reset cancels those that are pending.
    Censored values are recorded as their limit; the limits are in ``cohort.time_varying`` as
    ``<series>_low`` (in every table with a column CENS or BLQ), ``<series>_high`` and
    ``<series>_floor``, for :class:`~pyro_amortized.nlme.censored_distributions.Censored`. The
    column OCC becomes ``cohort.time_varying["OCC"]``. An observation in a row before a dose of the
    same time is not affected by this dose: its time is decreased by some units in the last place.
    Ignored columns, values that are carried forward and sorted rows are logged under
    ``pyro_amortized.nlme``.

    Args:
        table: Path of a text file with commas, semicolons, tabs, bars or blanks between the columns
            (lines that start with ``#`` are comments, ``.`` is a missing value), or a DataFrame.
        series: Name of the observations in the cohort; or, with several endpoints, a name for each
            value of the endpoint's column. Endpoints without a name are called
            ``<series>_<endpoint>``.
        covariates: Columns that are covariates with one value per individual; they keep the name
            given here. A column of texts is one of categories: their numbers are the covariate, and
            their names are in ``cohort.categories``: in alphabetical order, numbers inside them by
            their size, or in the order of an ordered column of a DataFrame.
        time_varying: Columns that are covariates that vary over time. The model chooses between the
            last value and the next one, ``cohort.time_varying[name].at(times, "next")``.
        incomplete: Columns that are covariates with one value per individual, which some do not
            have. Each becomes a series of that name with one time and one value, recorded or not,
            whose distribution is part of the model (page *Missing data*).
        endpoint: Column that distinguishes the endpoints, if there is one: DVID, or for instance
            CMT.
        time_unit: Unit of the times made from clock times, dates and time differences: "min", "h"
            or "d".
        columns: Names of the columns of a file that has no header.
        lloq: Lower limit of quantification where the table gives none: a number, or one by the name
            of each series, unit of the observations. The cohort then has ``<series>_low``, also if
            no value is censored.
        uloq: Upper limit of quantification, likewise.
        categories: Names of the categories of a covariate in the order of their numbers, also of
            those that no individual of this table has: ``{"SEX": ["F", "M"]}``. Default: the texts
            of the column, sorted.

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
    _check_names(covariates, time_varying, incomplete)
    named = [*covariates, *time_varying, *incomplete, endpoint]
    own_names = named if endpoint != "DVID" else named[:-1]  # which other names may stand for
    loaded = number_labels_of_occasions(load(table, columns, own_names))
    loaded, names = with_category_codes(loaded, covariates, categories or {})
    loaded = with_limits(loaded, series, endpoint, lloq, uloq)
    ids = identifiers(loaded)
    parsed = read_columns(loaded, ids, time_unit)
    order, rows = _rows_in_time(parsed, ids)
    log_surprises(loaded, parsed, rows, ids)
    log_unused(loaded, named)
    shifted = _record_order(parsed, rows)
    doses = read_doses(parsed, rows) if (parsed.is_dose | parsed.is_reset).any() else None
    series_by_name: dict[str, Series] = {}
    changing = [*time_varying, *(["OCC"] if "OCC" in loaded else [])]
    varying = {name: _varying(loaded, name, shifted, rows, order) for name in changing}
    begin = np.array([shifted[r[0]] for r in rows])
    for name, is_endpoint in endpoint_rows(loaded, parsed, series, endpoint).items():
        part = [r[is_endpoint[r]] for r in rows]
        series_by_name[name], limits = read_series(parsed, shifted, part, list(begin), name)
        varying |= {f"{name}_{kind}": s for kind, s in limits.items()}
    for name in incomplete:
        series_by_name[name] = incomplete_covariate(loaded, name, rows, order, begin)
    constant = {x: constant_covariate(loaded, x, rows, order, names.get(x, ())) for x in covariates}
    check_restarts(loaded, parsed, rows, order)
    return Cohort(series_by_name, doses, constant, tuple(order), varying, names)


def _rows_in_time(columns: Columns, ids: Sequence[str]) -> tuple[list[str], IndividualRows]:
    """The individuals, and the rows of each in the order of time."""
    where, order = np.array(ids), list(dict.fromkeys(ids))
    rows = [np.flatnonzero(where == name) for name in order]
    return order, [r[np.argsort(columns.time[r], kind="stable")] for r in rows]


def _check_names(
    covariates: Sequence[str], time_varying: Sequence[str], incomplete: Sequence[str]
) -> None:
    """Check that names of columns are in lists, and in one of them."""
    _check_lists(covariates=covariates, time_varying=time_varying, incomplete=incomplete)
    _check_apart(covariates, incomplete)


def _check_lists(**arguments: Sequence[str]) -> None:
    for argument, names in arguments.items():
        if isinstance(names, str):
            raise TableError(
                f"`{argument}` is the string {names!r}.",
                "a list of names of columns.",
                f"pass `{argument}=[{names!r}]`.",
            )


def _check_apart(covariates: Sequence[str], incomplete: Sequence[str]) -> None:
    both = [name for name in incomplete if name in covariates]
    if both:
        raise TableError(
            f"{both} are among `covariates=` and among `incomplete=`.",
            "each column once.",
            "leave a covariate that some individuals lack out of `covariates=`; "
            "`nlme.completed(cohort[name], ...)` is its value in the model.",
        )


def _record_order(columns: Columns, rows: IndividualRows) -> Numbers:
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


def _varying(
    table: Table, name: str, time: Numbers, rows: IndividualRows, order: list[str]
) -> Series:
    check_column(table, name, "time_varying")
    check_no_texts(table, name, "time_varying")
    values = table.numbers(name)
    for r, who in zip(rows, order, strict=True):
        if np.isnan(values[r]).all():
            raise table.error(
                int(r[0]), name, f"at least one value for individual {who}.", "fill one in."
            )
    log_codes(name, values, [who for r, who in zip(rows, order, strict=True) for _ in r])
    blank = int(np.isnan(values).sum())
    if blank:
        LOG.warning(
            "%d missing values of %s are taken from other records: the last one before, or the "
            "next one, as the model chooses (`at(times, rule)`).",
            blank,
            name,
        )
    width = max(len(r) for r in rows)
    times = torch.stack([filled(time[r], width, time[r][-1]) for r in rows])
    return Series(times, padded([values[r] for r in rows], width))
