r"""Writes a cohort as a long table, which :func:`~pyro_amortized.nlme.read_table` reads again."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...cohort import Cohort, Series
from ...errors import TableError

LIMITS = {"low": "LLOQ", "high": "ULOQ", "floor": "LIMIT"}


def to_table(cohort: Cohort, series: str | None = None) -> pd.DataFrame:
    r"""A cohort as a NONMEM-style long table.

    Args:
        cohort: The cohort; its series have one channel. Series of events become rows of their
            status, which ``nlme.with_events`` reads; planned ends of the follow-up are not written.
        series: Name of one series to write. Default: all of them, with the column DVID.

    Returns:
        Columns ID, TIME, DV, EVID and MDV. Where they are needed also AMT, RATE, CMT, II, SS, DVID,
        CENS, LIMIT, LLOQ, ULOQ, covariates, and covariates that vary over time. The times of the
        latter become rows with EVID 2 where there is no other record.

    Raises:
        TableError: A series has several channels.
    """
    names = list(cohort.series) if series is None else [series]
    rows_of_events = {n: _event_rows(cohort[n]) for n in names if cohort[n].has_statuses}
    cohort = replace(cohort, series={**cohort.series, **rows_of_events})
    for name in names:
        if cohort[name].values.dim() != 2:
            raise TableError(
                f"The series {name!r} has {cohort[name].values.shape[-1]} channels.",
                "one value per time.",
                "make a series of each channel.",
            )
    limits = {f"{n}_{kind}" for n in names for kind in LIMITS} & set(cohort.time_varying)
    varying = {
        n: s
        for n, s in cohort.time_varying.items()
        if not any(n == f"{m}_{k}" for m in cohort.series for k in LIMITS)
    }
    records: list[dict[str, Any]] = []
    for i, who in enumerate(cohort.ids):
        rows = _dose_records(cohort, i)
        for name in names:
            rows += _observations(cohort, i, name, limits, len(names) > 1)
        rows += _covariate_records(varying, i, [r["TIME"] for r in rows])
        rows.sort(key=lambda r: (r["TIME"], r["_order"]))
        fixed = {name: _entry(cohort, name, i) for name in cohort.covariates}
        records += [{"ID": who} | r | fixed for r in rows]
        _add_varying(records[len(records) - len(rows) :], varying, i)
    frame = pd.DataFrame(records).drop(columns="_order")
    frame = frame.fillna({n: 0 for n in ("AMT", "RATE", "II", "SS", "CENS") if n in frame})
    return frame.fillna({"CMT": 1}) if "CMT" in frame else frame


def _event_rows(series: Series) -> Series:
    """A series of events as rows of its status: events, and the first end of the observation."""
    times, status = series.values.unbind(-1)
    recorded = series.observed.all(-1)
    ends = (recorded & (status == 0)).long()
    kept = recorded & (ends.cumsum(-1) - ends == 0)
    known = torch.where(kept, times, -torch.inf).cummax(-1).values
    return Series(torch.where(known.isfinite(), known, 0.0), status, kept)


def _entry(cohort: Cohort, covariate: str, i: int) -> float | str:
    """The value of a covariate, or the name of its category."""
    value, names = float(cohort.covariates[covariate][i]), cohort.categories.get(covariate)
    return names[int(value)] if names else value


def _dose_records(cohort: Cohort, i: int) -> list[dict[str, Any]]:
    doses = cohort.doses
    if doses is None:
        return []
    records: list[dict[str, Any]] = []
    for j in doses.given[i].nonzero()[:, 0].tolist():
        amount, rate = float(doses.amounts[i, j]), float(doses.rates[i, j])
        duration, reset = float(doses.durations[i, j]), bool(doses.reset[i, j])
        if rate == 0 and duration > 0:
            rate = amount / duration
        steady = int(doses.steady_state[i, j])
        is_reset_only = reset and amount == 0 and steady == 0
        records.append(
            {
                "TIME": float(doses.times[i, j]),
                "DV": np.nan,
                "AMT": amount,
                "EVID": 3 if is_reset_only else 4 if reset else 1,
                "MDV": 1,
                "CMT": int(doses.compartment[i, j]),
                "RATE": rate,
                "_order": 1,
            }
        )
        if bool((doses.steady_state > 0).any()):
            records[-1] |= {"II": float(doses.intervals[i, j]), "SS": steady}
    return records


def _observations(
    cohort: Cohort, i: int, name: str, limits: set[str], several: bool
) -> list[dict[str, Any]]:
    s = cohort[name]
    given = [] if cohort.doses is None else cohort.doses.times[i][cohort.doses.given[i]].tolist()
    records: list[dict[str, Any]] = []
    for j in range(_length(s, i)):
        is_recorded, time = bool(s.observed[i, j]), float(s.times[i, j])
        value = float(s.values[i, j])
        near = [d for d in given if 0 < d - time <= 8 * np.finfo(float).eps * max(1.0, abs(d))]
        row: dict[str, Any] = {
            "TIME": near[0] if near else time,
            "DV": value if is_recorded else np.nan,
            "EVID": 0,
            "MDV": int(not is_recorded),
            "_order": 0 if near else 2,
        }
        row |= {"DVID": name} if several else {}
        bounds = {
            kind: float(cohort.time_varying[f"{name}_{kind}"].values[i, j])
            for kind in LIMITS
            if f"{name}_{kind}" in limits
        }
        if bounds:
            below = is_recorded and value <= bounds.get("low", -np.inf)
            above = is_recorded and value >= bounds.get("high", np.inf)
            row["CENS"] = 1 if below else -1 if above else 0
            row |= {LIMITS[kind]: bounds[kind] for kind in ("low", "high") if kind in bounds}
            has_floor = "floor" in bounds and bool(
                cohort.time_varying[f"{name}_floor"].observed[i, j]
            )
            row |= {"LIMIT": bounds["floor"]} if has_floor and below else {}
        records.append(row)
    return records


def _length(s: Series, i: int) -> int:
    """Number of columns of an individual without its padding."""
    repeats = s.times[:, 1:] == s.times[:, :-1]
    padding = torch.cat([torch.zeros_like(s.observed[:, :1]), repeats & ~s.observed[:, 1:]], 1)
    if bool(padding[:, -1].all()):
        return s.times.shape[1]
    return int((~padding[i]).nonzero().max()) + 1


def _covariate_records(
    varying: dict[str, Series], i: int, known: list[float]
) -> list[dict[str, Any]]:
    """Rows for values of covariates at whose time there are no other rows, or too few."""
    recorded = [s.times[i][s.observed[i]] for s in varying.values()]
    row_times = torch.tensor(known, dtype=torch.float64)
    added: list[float] = []
    for t in sorted({float(t) for times in recorded for t in times}):
        needed = max(int(_near(times, t).sum()) for times in recorded)
        rows = int(
            _near(row_times, t).sum() + _near(torch.tensor(added, dtype=torch.float64), t).sum()
        )
        added += [t] * (needed - rows)
    return [{"TIME": t, "DV": np.nan, "EVID": 2, "MDV": 1, "_order": 3} for t in added]


def _near(times: Tensor, time: float) -> Tensor:
    """Whether times are equal up to the units in the last place by which the reader moves a row."""
    return (times - time).abs() <= 8 * np.finfo(float).eps * max(1.0, abs(time))


def _add_varying(rows: list[dict[str, Any]], varying: dict[str, Series], i: int) -> None:
    for name, s in varying.items():
        times, seen = s.times[i].tolist(), s.observed[i].tolist()
        values = s.values[i].tolist()
        used = 0
        for row in rows:
            while used < len(times) and not seen[used]:
                used += 1
            slack = 8 * np.finfo(float).eps * max(1.0, abs(row["TIME"]))
            here = used < len(times) and abs(times[used] - row["TIME"]) <= slack
            row[name] = values[used] if here else np.nan
            used += here
