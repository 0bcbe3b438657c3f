r"""Cohort -> long table that :func:`~pyro_amortized.nlme.read_table` reads back."""

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
        cohort: The cohort; its series have one channel.
        series: Name of one series to write. Default: all of them, told apart by the column DVID.

    Returns:
        Columns ID, TIME, DV, EVID, MDV, and as far as they say something AMT, RATE, CMT, II, SS,
        DVID, CENS, LIMIT, LLOQ, ULOQ, covariates and those that vary over time (whose own times
        are written as EVID 2 where no other record stands there).

    Raises:
        TableError: A series has channels, or the limits of several series differ in kind.
    """
    names = list(cohort.series) if series is None else [series]
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
        mine = _dose_records(cohort, i)
        for name in names:
            mine += _observations(cohort, i, name, limits, len(names) > 1)
        mine += _others(varying, i, [r["TIME"] for r in mine])
        mine.sort(key=lambda r: (r["TIME"], r["_order"]))
        fixed = {name: float(x[i]) for name, x in cohort.covariates.items()}
        records += [{"ID": who} | r | fixed for r in mine]
        _add_varying(records[len(records) - len(mine) :], varying, i)
    frame = pd.DataFrame(records).drop(columns="_order")
    frame = frame.fillna({n: 0 for n in ("AMT", "RATE", "II", "SS", "CENS") if n in frame})
    return frame.fillna({"CMT": 1}) if "CMT" in frame else frame


def _dose_records(cohort: Cohort, i: int) -> list[dict[str, Any]]:
    doses = cohort.doses
    if doses is None:
        return []
    found = []
    for j in doses.given[i].nonzero()[:, 0].tolist():
        amount, rate = float(doses.amounts[i, j]), float(doses.rates[i, j])
        duration, reset = float(doses.durations[i, j]), bool(doses.reset[i, j])
        if rate == 0 and duration > 0:
            rate = amount / duration
        steady = int(doses.steady_state[i, j])
        alone = reset and amount == 0 and steady == 0
        found.append(
            {
                "TIME": float(doses.times[i, j]),
                "DV": np.nan,
                "AMT": amount,
                "EVID": 3 if alone else 4 if reset else 1,
                "MDV": 1,
                "CMT": int(doses.compartment[i, j]),
                "RATE": rate,
                "_order": 1,
            }
        )
        if bool((doses.steady_state > 0).any()):
            found[-1] |= {"II": float(doses.intervals[i, j]), "SS": steady}
    return found


def _observations(
    cohort: Cohort, i: int, name: str, limits: set[str], several: bool
) -> list[dict[str, Any]]:
    s = cohort[name]
    given = [] if cohort.doses is None else cohort.doses.times[i][cohort.doses.given[i]].tolist()
    found = []
    for j in range(_length(s, i)):
        seen, time = bool(s.observed[i, j]), float(s.times[i, j])
        value = float(s.values[i, j])
        near = [d for d in given if 0 < d - time <= 8 * np.finfo(float).eps * max(1.0, abs(d))]
        row: dict[str, Any] = {
            "TIME": near[0] if near else time,
            "DV": value if seen else np.nan,
            "EVID": 0,
            "MDV": int(not seen),
            "_order": 0 if near else 2,
        }
        row |= {"DVID": name} if several else {}
        bounds = {
            kind: float(cohort.time_varying[f"{name}_{kind}"].values[i, j])
            for kind in LIMITS
            if f"{name}_{kind}" in limits
        }
        if bounds:
            below = seen and value <= bounds.get("low", -np.inf)
            above = seen and value >= bounds.get("high", np.inf)
            row["CENS"] = 1 if below else -1 if above else 0
            row |= {LIMITS[kind]: bounds[kind] for kind in ("low", "high") if kind in bounds}
            known = "floor" in bounds and bool(cohort.time_varying[f"{name}_floor"].observed[i, j])
            row |= {"LIMIT": bounds["floor"]} if known and below else {}
        found.append(row)
    return found


def _length(s: Series, i: int) -> int:
    """Number of columns of an individual without its padding, where another one fills the width."""
    repeats = s.times[:, 1:] == s.times[:, :-1]
    padding = torch.cat([torch.zeros_like(s.observed[:, :1]), repeats & ~s.observed[:, 1:]], 1)
    if bool(padding[:, -1].all()):
        return s.times.shape[1]
    return int((~padding[i]).nonzero().max()) + 1


def _others(varying: dict[str, Series], i: int, known: list[float]) -> list[dict[str, Any]]:
    """Rows for records of covariates that find no row, or too few rows, of their time."""
    recorded = [s.times[i][s.observed[i]] for s in varying.values()]
    there = torch.tensor(known, dtype=torch.float64)
    more: list[float] = []
    for t in sorted({float(t) for times in recorded for t in times}):
        needed = max(int(_near(times, t).sum()) for times in recorded)
        rows = int(_near(there, t).sum() + _near(torch.tensor(more, dtype=torch.float64), t).sum())
        more += [t] * (needed - rows)
    return [{"TIME": t, "DV": np.nan, "EVID": 2, "MDV": 1, "_order": 3} for t in more]


def _near(times: Tensor, time: float) -> Tensor:
    """Equal but for the units in the last place by which reading moves a row before a dose."""
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
