r"""The observations of a long table: the rows of each series, and its limits of quantification."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...cohort import Series
from ...errors import TableError
from .columns import Columns
from .quantification_limits import limit_of_every_value, limit_of_no_value
from .table_source import Mask, Numbers, Table, label

IndividualRows = list[np.ndarray]


def endpoint_rows(
    table: Table, columns: Columns, series: str | Mapping[object, str], endpoint: str
) -> dict[str, Mask]:
    """The rows of each series, by name."""
    observation = columns.is_observation
    if not observation.any():
        raise TableError(
            "The table has no observation (EVID 0).",
            "at least one observation record.",
            "check the column EVID."
            if "EVID" in table
            else "AMT is above 0 in every row, and without EVID such a row is a dose: leave AMT "
            "empty in the rows of observations, or add EVID.",
        )
    named = {} if isinstance(series, str) else {label(k): v for k, v in series.items()}
    if endpoint not in table:
        compartments = set(columns.number["CMT"][observation])
        if named or endpoint != "DVID":
            raise TableError(
                f"The table has no column {endpoint} (it has {list(table.frame.columns)}).",
                "a column that distinguishes the endpoints.",
                "check `endpoint=`, or pass one name as `series=`.",
            )
        if len(compartments) > 1:
            raise TableError(
                f"Observations are in compartments {sorted(int(x) for x in compartments)} (CMT).",
                "one endpoint, or a column that distinguishes the endpoints.",
                'pass `endpoint="CMT"`.',
            )
        return {str(series): observation}
    return _named_rows(table, observation, series, named, endpoint)


def _named_rows(
    table: Table,
    observation: Mask,
    series: str | Mapping[object, str],
    named: dict[str, str],
    endpoint: str,
) -> dict[str, Mask]:
    entries = table.frame[endpoint]
    table.refuse(
        entries.isna().to_numpy(dtype=bool) & observation,
        endpoint,
        "an endpoint for every observation.",
        "fill it in.",
    )
    labels = np.array([label(x) for x in entries])
    present = list(dict.fromkeys(map(str, labels[observation])))
    unknown = [x for x in named if x not in present]
    if unknown:
        raise TableError(
            f"No observation has the endpoint {unknown[0]!r} of `series` (column {endpoint}).",
            f"some of {present}.",
            "correct `series=`.",
        )
    if isinstance(series, str):
        is_single = len(present) == 1
        named = {x: series if is_single else f"{series}_{x}" for x in present}
    rows_of = {named.get(x, f"dv_{x}"): observation & (labels == x) for x in present}
    if len(rows_of) < len(present):
        raise TableError(
            f"Two endpoints get the same name: {named}.", "different names.", "correct `series=`."
        )
    return rows_of


def read_series(
    columns: Columns, time: Numbers, rows: IndividualRows, first: list[float], name: str
) -> tuple[Series, dict[str, Series]]:
    """One series and its limits of quantification, by kind."""
    number = columns.number
    low, high, floor = (
        number["LLOQ"].copy(),
        number["ULOQ"].copy(),
        np.full_like(time, np.nan),
    )
    value = np.where(number["MDV"] == 1, np.nan, number["DV"])
    recorded = columns.is_observation & (number["MDV"] == 0)
    below = recorded & ((number["CENS"] == 1) | (number["BLQ"] == 1))
    above = recorded & (number["CENS"] == -1)
    # DV stands for no limit where it is 0 or missing beside one.
    without = (number["BLQ"] == 1) | np.isnan(number["DV"]) | (number["DV"] == 0)
    limit = np.where(without & ~np.isnan(number["LLOQ"]), number["LLOQ"], number["DV"])
    value = np.where(below, limit, value)
    low, high = np.where(below, limit, low), np.where(above, number["DV"], high)
    floor = np.where(below, number["LIMIT"], floor)
    width = max(1, max(len(r) for r in rows))
    ends = [time[r][-1] if len(r) else begin for r, begin in zip(rows, first, strict=True)]
    grid = torch.stack([filled(time[r], width, end) for r, end in zip(rows, ends, strict=True)])
    values = padded([value[r] for r in rows], width)
    series_rows = np.concatenate(rows)
    limits = {}
    for kind, bound, side in (("low", low, -1), ("high", high, 1)):
        if not np.isnan(bound[series_rows]).all():
            of_rows = padded([bound[r] for r in rows], width)
            limits[kind] = limit_of_every_value(grid, values, of_rows, side)
        elif kind == "low" and columns.has_flags and not above[series_rows].any():
            lowest = limit_of_no_value(name, values)
            limits[kind] = limit_of_every_value(grid, values, lowest, side)
    if not np.isnan(floor[series_rows]).all():
        limits["floor"] = Series(grid, padded([floor[r] for r in rows], width))
    return Series(grid, values), limits


def padded(rows: IndividualRows, width: int) -> Tensor:
    """Rows of different lengths as one tensor, padded with NaN."""
    return torch.stack([filled(r, width, np.nan) for r in rows])


def filled(values: np.ndarray, width: int, fill: float) -> Tensor:
    """A row at the full width, padded with ``fill``."""
    out = torch.full((width,), float(fill), dtype=torch.float64)
    out[: len(values)] = torch.as_tensor(values, dtype=torch.float64)
    return out
