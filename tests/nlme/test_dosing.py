"""Doses, steady states, resets and lag times: predictions of NONMEM, by formulas and by solvers."""

import pandas as pd
import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.cohort import Doses
from pyro_amortized.errors import CohortError, ModelError
from tests.nlme.kit import ONE, depot, parameters
from tests.paths import SHARED

EVENTS = SHARED / "events" / "events.csv"

WRONG = {
    409,
    410,
    411,
    415,
    509,
    510,
    610,
    709,
    809,
    825,
    909,
    1009,
}  # lag > II: NONMEM's own errors

TIMES = [3.0, 25.0, 49.0, 56.0, 100.0]

# Predictions of NONMEM 7.4.3 (1000 A2 / V; KA 1.5, CL 1.1, V 20; lag and bioavailability act on
# compartment 2) at TIMES, and the records: time, amount, rate, compartment, ADDL, II, SS, EVID.
PUBLISHED = {
    "bolus, lag 12.13, F 2.23": (
        [(0, 100, 0, 2, 3, 24, 0, 1)],
        {"lag": 12.13, "bioavailability": 2.23},
        [0.0, 5493.6, 6961.2, 4736.7, 6323.5],
    ),
    "infusion, F .5": (
        [(0, 480, 10, 2, 0, 0, 0, 1)],
        {"bioavailability": 0.5},
        [1382.8, 6305.9, 1684.5, 1146.2, 101.92],
    ),
    "infusion, lag 3.25": (
        [(0, 100, 10, 2, 3, 24, 0, 1)],
        {"lag": 3.25, "bioavailability": 0.412},
        [0.0, 699.0, 885.73, 2383.2, 804.59],
    ),
    "steady state of a lagged infusion": (
        [(0, 100, 10, 2, 3, 24, 1, 1)],
        {"lag": 3.16, "bioavailability": 0.412},
        [850.22, 949.08, 949.08, 2417.5, 804.72],
    ),
    "steady state, infusion as long as its interval": (
        [(0, 100, 4.12, 2, 8, 10, 1, 1)],
        {"bioavailability": 0.412},
        [3745.5, 3745.5, 3745.5, 3745.5, 2160.9],
    ),
    "duration of the model": (
        [(0, 100, -2, 2, 3, 24, 0, 1)],
        {"lag": 5.0, "bioavailability": 0.61, "duration": 9.0},
        [0.0, 1313.7, 1664.6, 2069.9, 1512.1],
    ),
    "reset and dose": (
        [(0, 100, 50, 1, 2, 12, 0, 1), (50, 120, 0, 1, 3, 12, 0, 4)],
        {},
        [4285.2, 5252.2, 2474.8, 4477.0, 5542.9],
    ),
    "reset alone": (
        [(0, 100, 50, 1, 3, 12, 0, 1), (50, 0, 0, 2, 0, 0, 0, 3), (54, 120, 0, 1, 2, 16, 0, 1)],
        {},
        [4285.2, 5252.2, 5158.7, 5269.5, 4576.1],
    ),
    "steady states added": (
        [(0, 100, 0, 1, 3, 24, 1, 1), (12, 50, 0, 1, 3, 24, 2, 1)],
        {},
        [5947.3, 7277.4, 7277.4, 5739.9, 2987.1],
    ),
    "steady state of a constant infusion": (
        [(0, 0, 100, 1, 0, 0, 1, 1)],
        {},
        [79977.0, 23860.0, 6373.9, 4337.1, 385.67],
    ),
    "steady states with a long lag": (
        [
            (0, 100, 25, 2, 0, 24, 1, 1),
            (12, 50, 12.5, 2, 0, 24, 2, 1),
            (24, 100, 25, 2, 2, 24, 1, 1),
            (36, 50, 12.5, 2, 2, 24, 2, 1),
        ],
        {"lag": 20.0},
        [5192.7, 5796.5, 7294.4, 4963.5, 6184.9],
    ),
}


def doses_of(records):
    columns = ["TIME", "AMT", "RATE", "CMT", "ADDL", "II", "SS", "EVID"]
    frame = pd.DataFrame(records, columns=columns).assign(ID=1, DV=None)
    last = pd.DataFrame([{"ID": 1, "TIME": 200.0, "DV": 1.0, "EVID": 0}])
    return nlme.read_table(pd.concat([frame, last])).doses


def delivery_of(lag=0.0, bioavailability=1.0, rate=10.0, duration=2.0):
    return nlme.Delivery(
        lag={2: lag * ONE},
        bioavailability={2: bioavailability * ONE},
        rate=rate * ONE,
        duration=duration * ONE,
    )


def predictions(times, doses, delivery, solver):
    p = parameters()
    if solver == "formula":
        return 1000 * nlme.one_compartment(times, doses, **p, delivery=delivery)[0]
    x = nlme.integrate(
        depot,
        torch.zeros(2).double(),
        times,
        p,
        doses=doses,
        delivery=delivery,
        solver=solver,
        rtol=1e-7,
    )
    assert x.solver == ("torchdiffeq" if solver == "torchdiffeq" else "compiled")
    assert not x.failed.any()
    return 1000 * x.states[0, :, 1] / 20.0


@pytest.mark.parametrize(
    "solver",
    ["formula", "compiled", "implicit", pytest.param("torchdiffeq", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_predictions_of_nonmem(name, solver):
    records, delivery, expected = PUBLISHED[name]
    times = torch.tensor([TIMES], dtype=torch.float64)
    predicted = predictions(times, doses_of(records), delivery_of(**delivery), solver)
    assert predicted.tolist() == pytest.approx(expected, rel=5.1e-5, abs=1e-3)


@pytest.mark.skipif(not EVENTS.is_file(), reason="the reference data are not in a user's checkout")
def test_the_whole_table_of_events():
    """Individuals of every kind of record; all but those in which NONMEM is known to be wrong."""
    rows = pd.read_csv(EVENTS)
    num = 0
    for i, records in rows.groupby("id"):
        if i in WRONG:
            continue
        first = records[records.evid != 0].iloc[0]
        frame = records.rename(columns={"cp": "DV"}).drop(columns="mode")
        cohort = nlme.read_table(frame.assign(cmt=records.cmt.where(records.evid != 0, 1)))
        delivery = delivery_of(first.lagt, first.bioav, first.rat2, first.dur2)
        values, times = cohort["dv"].values[0], cohort["dv"].times
        formula = predictions(times, cohort.doses, delivery, "formula")
        assert bool(((formula - values).abs() <= 5.1e-5 * values.abs() + 1e-3).all()), i
        solved = predictions(times, cohort.doses, delivery, "compiled")
        assert bool(((formula - solved).abs() <= 1e-6 * formula.abs().max()).all()), i
        num += 1
    assert num == 42


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rates": torch.tensor([[-3.0]])}, "neither positive"),
        ({"intervals": torch.tensor([[-1.0]])}, "negative or infinite interval"),
        ({"steady_state": torch.tensor([[3]])}, "other than 0, 1 and 2"),
        ({"steady_state": torch.tensor([[1]])}, "without an interval"),
        ({"steady_state": torch.tensor([[1]]), "amounts": torch.zeros(1, 1)}, "without rate"),
        ({"compartment": torch.tensor([[0]])}, "below 1"),
        ({"amounts": torch.tensor([[-1.0]])}, "negative"),
        ({"reset": torch.tensor([[1.0]])}, "boolean mask"),
        ({"rates": torch.ones(1, 2)}, "has shape"),
    ],
)
def test_bad_doses(changes, match):
    with pytest.raises(CohortError, match=match):
        Doses(**({"times": torch.zeros(1, 1), "amounts": torch.ones(1, 1)} | changes))


def test_modelled_rates_need_a_delivery():
    doses = Doses(torch.zeros(1, 1), torch.ones(1, 1), rates=torch.tensor([[-1.0]]))
    with pytest.raises(ModelError, match="Delivery"):
        nlme.one_compartment(torch.ones(1, 1), doses, cl=ONE, v=ONE)
    given_rate = nlme.one_compartment(
        torch.ones(1, 1), doses, cl=ONE, v=ONE, delivery=nlme.Delivery(rate=2 * ONE)
    )
    known = Doses(torch.zeros(1, 1), torch.ones(1, 1), torch.full((1, 1), 0.5))
    assert torch.allclose(given_rate, nlme.one_compartment(torch.ones(1, 1), known, cl=ONE, v=ONE))
