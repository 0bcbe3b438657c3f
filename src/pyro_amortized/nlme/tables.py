r"""NONMEM-style long tables <-> :class:`~pyro_amortized.Cohort`.

One row per event. Columns (names in any case): ``ID``, ``TIME``, ``DV`` and, as far as they are
there, ``AMT``, ``EVID`` (0 observation, 1 dose), ``MDV`` (1: not recorded), ``CMT``, ``RATE`` (> 0:
infusion) and covariates that are constant per individual.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..cohort import Cohort, Doses, Series
from ..errors import TableError

_UNSUPPORTED = ("ADDL", "II", "SS", "DVID", "CENS", "LIMIT", "BLQ", "OCC")


def read_table(
    table: str | Path | pd.DataFrame, *, series: str = "dv", covariates: Sequence[str] = ()
) -> Cohort:
    r"""Read a cohort from a long table.

    Args:
        table: Path of a CSV file (lines that start with ``#`` are comments, ``.`` is a missing
            value), or a DataFrame.
        series: Name that the observations get in the cohort.
        covariates: Columns to take as covariates, one value per individual; they keep the name
            given here.

    Returns:
        The cohort in float64, individuals in the order of their first row, rows sorted by time
        (rows of equal time keep their order), padded to the same number of times and doses.

    Raises:
        TableError: A column is missing, an entry cannot be read, or the table uses an event that is
            not supported. The message names the row.

    Example:
        >>> frame = pd.DataFrame({"ID": [1, 1, 1], "TIME": [0, 1, 2], "DV": [None, 4.2, None],
        ...                       "AMT": [100, None, None], "EVID": [1, 0, 0]})
        >>> cohort = read_table(frame, series="concentration")
        >>> cohort["concentration"].observed
        tensor([[ True, False]])
    """
    frame, position = _load(table)
    numbers = {
        name: _numbers(frame, name, position)
        for name in ("TIME", "DV", "AMT", "EVID", "MDV", "CMT", "RATE")
    }
    is_dose, is_observation = _events(numbers, position)
    ids = frame["ID"].astype(str)
    order = list(dict.fromkeys(ids))
    rows = [np.flatnonzero((ids == label).to_numpy()) for label in order]
    rows = [r[np.argsort(numbers["TIME"][r], kind="stable")] for r in rows]
    observations = [r[is_observation[r]] for r in rows]
    doses = [r[is_dose[r]] for r in rows]
    width = max(1, max(len(r) for r in observations))
    recorded = np.where(numbers["MDV"] == 1, np.nan, numbers["DV"])
    values = _padded([recorded[r] for r in observations], width, np.nan)
    last = [numbers["TIME"][r][-1] if len(r) else 0.0 for r in observations]
    times = torch.stack(
        [_row(numbers["TIME"][r], width, end) for r, end in zip(observations, last, strict=True)]
    )
    return Cohort(
        {series: Series(times, values)},
        _doses(numbers, doses) if any(len(r) for r in doses) else None,
        {name: _covariate(frame, name, rows, order, position) for name in covariates},
        tuple(order),
    )


def to_table(cohort: Cohort, series: str) -> pd.DataFrame:
    r"""One series of a cohort, with doses and covariates, as a long table that :func:`read_table`
    reads back.

    Args:
        cohort: The cohort.
        series: Name of the series to write, of shape ``(individual, time)``.

    Returns:
        Columns ID, TIME, DV, AMT, EVID, MDV, CMT, RATE and one per covariate.
    """
    records = []
    data = cohort[series]
    for i, label in enumerate(cohort.ids):
        fixed = {name: float(x[i]) for name, x in cohort.covariates.items()}
        if cohort.doses is not None:
            for j in cohort.doses.given[i].nonzero()[:, 0].tolist():
                duration, amount = (
                    float(cohort.doses.durations[i, j]),
                    float(cohort.doses.amounts[i, j]),
                )
                rate = amount / duration if duration > 0 else 0.0
                dose = {
                    "ID": label,
                    "TIME": float(cohort.doses.times[i, j]),
                    "DV": np.nan,
                    "AMT": amount,
                }
                records.append(
                    dose
                    | {
                        "EVID": 1,
                        "MDV": 1,
                        "CMT": int(cohort.doses.compartment[i, j]),
                        "RATE": rate,
                    }
                )
                records[-1] |= fixed
        for j in range(data.times.shape[1]):
            seen = bool(data.observed[i, j])
            row = {
                "ID": label,
                "TIME": float(data.times[i, j]),
                "DV": float(data.values[i, j]) if seen else np.nan,
            }
            records.append(
                row | {"AMT": 0.0, "EVID": 0, "MDV": int(not seen), "CMT": 1, "RATE": 0.0} | fixed
            )
    return pd.DataFrame(records)


def _load(table: str | Path | pd.DataFrame) -> tuple[pd.DataFrame, pd.Index]:
    if isinstance(table, pd.DataFrame):
        frame = table.copy()
    else:
        frame = pd.read_csv(table, comment="#", na_values=["."], skipinitialspace=True)
        frame.index = frame.index + 2  # the header is line 1
    frame.columns = [
        c.upper() if c.upper() in {"ID", "TIME", "DV", "AMT", "EVID", "MDV", "CMT", "RATE"} else c
        for c in map(str, frame.columns)
    ]
    missing = [name for name in ("ID", "TIME", "DV") if name not in frame.columns]
    if missing:
        raise TableError(
            f"The table has no column {missing[0]} (it has {list(frame.columns)}).",
            "the columns ID, TIME and DV.",
            "rename your columns, for instance `frame.rename(columns={'Subject': 'ID'})`.",
        )
    for name in frame.columns:
        if (
            name.upper() in _UNSUPPORTED
            and pd.to_numeric(frame[name], errors="coerce").fillna(0).ne(0).any()
        ):
            raise TableError(
                f"The table uses the column {name}.",
                "no ADDL, II, SS, DVID, CENS, LIMIT, BLQ or OCC: they are not supported yet.",
                "write out additional doses as rows of their own, split endpoints into tables, "
                "or drop the column.",
            )
    if frame["ID"].isna().any():
        raise TableError(
            f"Row {frame.index[frame['ID'].isna()][0]} has no ID.",
            "an ID in every row.",
            "fill in the ID.",
        )
    return frame, frame.index


def _numbers(frame: pd.DataFrame, name: str, position: pd.Index) -> np.ndarray:
    if name not in frame.columns:
        default = {"AMT": 0.0, "CMT": 1.0, "RATE": 0.0, "MDV": 0.0}.get(name, np.nan)
        return np.full(len(frame), default)
    numbers = pd.to_numeric(frame[name], errors="coerce")
    wrong = numbers.isna() & frame[name].notna() & (frame[name].astype(str).str.strip() != ".")
    if wrong.any():
        raise TableError(
            f"Row {position[wrong][0]}, column {name}: {frame[name][wrong].iloc[0]!r} is not a "
            "number.",
            "numbers (`.` or empty for a missing value).",
            "correct the entry; clock times and dates are to be converted to hours or days first.",
        )
    filled = (
        numbers if name in ("DV", "EVID", "TIME") else numbers.fillna(1.0 if name == "CMT" else 0.0)
    )
    return np.asarray(filled, dtype=float)


def _events(numbers: dict[str, np.ndarray], position: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    amounts = numbers["AMT"]
    evid = np.where(np.isnan(numbers["EVID"]), (amounts > 0).astype(float), numbers["EVID"])
    bad = {
        "has no finite TIME": ~np.isfinite(numbers["TIME"]),
        "has an EVID other than 0 and 1": ~np.isin(evid, (0, 1)),
        "has a negative or infinite AMT": ~(np.isfinite(amounts) & (amounts >= 0)),
        "is a dose without AMT": (evid == 1) & (amounts <= 0),
        "is an observation with an AMT": (evid == 0) & (amounts > 0),
        "has a negative RATE": numbers["RATE"] < 0,
        "has an infinite DV": np.isinf(numbers["DV"]),
    }
    for what, where in bad.items():
        if where.any():
            raise TableError(
                f"Row {position[where][0]} {what}.",
                "observations (EVID 0, AMT 0) and doses (EVID 1, AMT > 0, RATE 0 or positive) "
                "at finite times.",
                "correct the row; resets and modelled rates are not supported yet.",
            )
    return evid == 1, evid == 0


def _doses(numbers: dict[str, np.ndarray], rows: list[np.ndarray]) -> Doses:
    width = max(len(r) for r in rows)
    rate = numbers["RATE"]
    durations = np.divide(numbers["AMT"], rate, out=np.zeros_like(rate), where=rate > 0)
    columns = [
        _padded([x[r] for r in rows], width, 0.0)
        for x in (numbers["TIME"], numbers["AMT"], durations)
    ]
    compartment = _padded([numbers["CMT"][r] for r in rows], width, 1.0).long()
    given = _padded([np.ones(len(r)) for r in rows], width, 0.0).bool()
    times, amounts, padded = columns
    return Doses(times, amounts, padded, compartment, given)


def _covariate(
    frame: pd.DataFrame, name: str, rows: list[np.ndarray], order: list[str], position: pd.Index
) -> Tensor:
    if name not in frame.columns:
        raise TableError(
            f"The table has no column {name!r} (it has {list(frame.columns)}).",
            "a column for every covariate asked for.",
            "check the spelling in `covariates=`.",
        )
    values = _numbers(frame, name, position)
    for label, r in zip(order, rows, strict=True):
        if len(set(values[r])) != 1:
            raise TableError(
                f"Covariate {name!r} of individual {label} varies or is missing: "
                f"{values[r][:6].tolist()}.",
                "one value per individual.",
                "take the baseline value; covariates that vary over time are not supported yet.",
            )
    return torch.tensor([values[r[0]] for r in rows], dtype=torch.float64)


def _padded(rows: list[np.ndarray], width: int, fill: float) -> Tensor:
    return torch.stack([_row(r, width, fill) for r in rows])


def _row(values: np.ndarray, width: int, fill: float) -> Tensor:
    out = torch.full((width,), float(fill), dtype=torch.float64)
    out[: len(values)] = torch.as_tensor(values, dtype=torch.float64)
    return out
