"""From a cohort to a table and back."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyro_amortized import datasets, nlme
from pyro_amortized.cohort import Cohort, Doses, Series

from .kit import same


def test_round_trip_through_a_table():
    cohort = datasets.theophylline()
    reread = nlme.read_table(
        nlme.to_table(cohort, "concentration"), series="concentration", covariates=["weight"]
    )
    same(reread, cohort)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
@example(4517)  # two samples before a dose at their time, of which one is not recorded
@example(34249)  # three values of CRCL at a time of which two rows are left
def test_a_round_trip_loses_nothing(seed):
    rng = np.random.default_rng(seed)
    rows = []
    for who in ("a", "b", "c"):
        times = np.sort(rng.integers(0, 30, rng.integers(2, 9))).astype(float)
        for time in times:
            dose = rng.random() < 0.4
            steady = int(dose and rng.random() < 0.3)
            below = not dose and rng.random() < 0.3
            rows.append(
                {
                    "ID": who,
                    "TIME": time,
                    "DV": math.nan if dose else 0.5 if below else 0.5 + rng.random(),
                    "EVID": (4 if rng.random() < 0.2 else 1) if dose else 0,
                    "MDV": int(dose or rng.random() < 0.2),
                    "AMT": rng.random() + 0.1 if dose else 0.0,
                    "RATE": rng.choice([0.0, 2.0, -1.0, -2.0]) if dose else 0.0,
                    "II": 12.0 if steady else 0.0,
                    "SS": steady,
                    "CMT": rng.integers(1, 3),
                    "CENS": int(below),
                    "DVID": rng.choice(["x", "y"]),
                    "WT": {"a": 1.0, "b": 2.0, "c": 3.0}[who],
                    "CRCL": rng.choice([math.nan, rng.random()]) if time > times[0] else 1.0,
                }
            )
    rows.append({"ID": "c", "TIME": 40.0, "DV": 1.0, "EVID": 0, "DVID": "x", "WT": 3.0})
    rows.append({"ID": "c", "TIME": 40.0, "DV": 1.0, "EVID": 0, "DVID": "y", "WT": 3.0})
    frame = pd.DataFrame(rows)
    names = {"x": "x", "y": "y"}
    options = {"series": names, "covariates": ["WT"], "time_varying": ["CRCL"]}
    cohort = nlme.read_table(frame, **options)
    reread = nlme.read_table(nlme.to_table(cohort), **options)
    same(reread, cohort)


def test_covariates_with_times_of_their_own_keep_them():
    series = Series(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 2.0]]))
    weight = Series(torch.tensor([[0.5, 1.0]]), torch.tensor([[70.0, 68.0]]))
    cohort = Cohort(
        {"y": series}, Doses(torch.zeros(1, 1), torch.ones(1, 1)), time_varying={"WT": weight}
    )
    frame = nlme.to_table(cohort)
    assert frame["EVID"].tolist() == [1, 0, 2, 2, 0]
    reread = nlme.read_table(frame, series="y", time_varying=["WT"]).time_varying["WT"]
    when = torch.tensor([[0.0, 0.7, 1.5]]).double()
    assert reread.at(when).tolist() == [[70.0, 70.0, 68.0]]
