"""Doses, steady states, resets, lag times: NONMEM's own predictions, and ODEs beside formulas."""

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_amortized import nlme
from pyro_amortized.cohort import Doses
from pyro_amortized.errors import CohortError, ModelError
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
ONE = torch.ones(1, dtype=torch.float64)

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


def depot(t, x, p):
    absorbed = p["ka"] * x[:, 0]
    return torch.stack([-absorbed, absorbed - p["cl"] / p["v"] * x[:, 1]], -1)


def parameters():
    return {"ka": 1.5 * ONE, "cl": 1.1 * ONE, "v": 20.0 * ONE}


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
        rtol=1e-9,
    )
    assert x.solver == ("torchdiffeq" if solver == "torchdiffeq" else "compiled")
    assert not x.failed.any()
    return 1000 * x.states[0, :, 1] / 20.0


@pytest.mark.parametrize("solver", ["formula", "compiled", "implicit", "torchdiffeq"])
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_predictions_of_nonmem(name, solver):
    records, delivery, expected = PUBLISHED[name]
    times = torch.tensor([TIMES], dtype=torch.float64)
    found = predictions(times, doses_of(records), delivery_of(**delivery), solver)
    assert found.tolist() == pytest.approx(expected, rel=5.1e-5, abs=1e-3)


@pytest.mark.skipif(not EVENTS.is_file(), reason="the reference data are not in a user's checkout")
def test_the_whole_table_of_events():
    """Individuals of every kind of record; all but those in which NONMEM is known to be wrong."""
    rows = pd.read_csv(EVENTS)
    num = 0
    for i, mine in rows.groupby("id"):
        if i in WRONG:
            continue
        first = mine[mine.evid != 0].iloc[0]
        frame = mine.rename(columns={"cp": "DV"}).drop(columns="mode")
        cohort = nlme.read_table(frame.assign(cmt=mine.cmt.where(mine.evid != 0, 1)))
        delivery = delivery_of(first.lagt, first.bioav, first.rat2, first.dur2)
        values, times = cohort["dv"].values[0], cohort["dv"].times
        formula = predictions(times, cohort.doses, delivery, "formula")
        assert bool(((formula - values).abs() <= 5.1e-5 * values.abs() + 1e-3).all()), i
        solved = predictions(times, cohort.doses, delivery, "compiled")
        assert bool(((formula - solved).abs() <= 1e-6 * formula.abs().max()).all()), i
        num += 1
    assert num == 42


def two(t, x, p):
    depot, central, side = x.unbind(-1)
    k12, k21 = p["q"] / p["v"], p["q"] / p["v2"]
    flow = k12 * central - k21 * side
    out = p["cl"] / p["v"] * central
    return torch.stack([-p["ka"] * depot, p["ka"] * depot - out - flow, flow], -1)


def three(t, x, p):
    depot, central, a, b = x.unbind(-1)
    flow_a = p["q"] / p["v"] * central - p["q"] / p["v2"] * a
    flow_b = p["q3"] / p["v"] * central - p["q3"] / p["v3"] * b
    out = p["cl"] / p["v"] * central
    into = p["ka"] * depot
    return torch.stack([-into, into - out - flow_a - flow_b, flow_a, flow_b], -1)


def formed(t, x, p):
    depot, central, other = x.unbind(-1)
    out = p["cl"] / p["v"] * central
    into = p["ka"] * depot
    return torch.stack([-into, into - out, p["fm"] * out - p["clm"] / p["vm"] * other], -1)


MODELS = {
    "one": (nlme.one_compartment, depot, 2, ("ka", "cl", "v"), 1, "v"),
    "two": (nlme.two_compartments, two, 3, ("ka", "cl", "v", "q", "v2"), 1, "v"),
    "three": (nlme.three_compartments, three, 4, ("ka", "cl", "v", "q", "v2", "q3", "v3"), 1, "v"),
    "metabolite": (nlme.metabolite, formed, 3, ("ka", "cl", "v", "fm", "clm", "vm"), 2, "vm"),
}


def random_doses(generator, num, steady):
    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    times = (60 * uniform(num, 5)).sort(1).values
    infused = uniform(num, 5) < 0.4
    states = torch.where(uniform(num, 5) < 0.3, 1 + (uniform(num, 5) < 0.5).long(), 0) * steady
    return Doses(
        times,
        10 + 90 * uniform(num, 5),
        torch.where(infused, 0.5 + 9 * uniform(num, 5), 0.0),
        1 + (uniform(num, 5) < 0.5).long(),
        uniform(num, 5) < 0.9,
        intervals=torch.where(states > 0, 4 + 8 * uniform(num, 5), 0.0),
        steady_state=states,
        reset=uniform(num, 5) < 0.1,
    )


@pytest.mark.parametrize("steady", [0, 1])
@pytest.mark.parametrize("name", list(MODELS))
def test_formulas_equal_their_equations(name, steady):
    formula, f, num_states, names, place, volume = MODELS[name]
    generator = torch.Generator().manual_seed(5)
    num = 12
    p = {
        n: (0.2 + 1.3 * torch.rand(num, generator=generator, dtype=torch.float64))
        * (10.0 if n.startswith("v") else 1.0)
        for n in names
    }
    if "fm" in p:
        p["fm"] = p["fm"] / 2
    lag = torch.rand(num, generator=generator, dtype=torch.float64)
    delivery = nlme.Delivery(lag=lag, bioavailability={1: 0.5 + lag / 2})
    doses = random_doses(generator, num, steady)
    times = (80 * torch.rand(num, 15, generator=generator, dtype=torch.float64)).sort(1).values
    closed = formula(times, doses, **p, delivery=delivery)
    solved = nlme.solve(
        f,
        torch.zeros(num_states).double(),
        times,
        p,
        doses=doses,
        delivery=delivery,
        solver="compiled",
        rtol=1e-10,
    )
    amounts = solved[..., place] / p[volume].unsqueeze(-1)
    assert torch.allclose(closed, amounts, rtol=1e-6, atol=1e-6 * float(closed.max()))


@pytest.mark.parametrize("name", list(MODELS))
def test_gradients_of_formulas_equal_differences(name):
    formula, _, _, names, _, _ = MODELS[name]
    generator = torch.Generator().manual_seed(6)
    p = {n: 0.5 + torch.rand(2, generator=generator, dtype=torch.float64) for n in names}
    p = {n: x.requires_grad_() for n, x in p.items()}
    doses = random_doses(generator, 2, 1)
    times = (80 * torch.rand(2, 6, generator=generator, dtype=torch.float64)).sort(1).values

    def total(*values):
        return formula(times, doses, **dict(zip(names, values, strict=True)))

    assert torch.autograd.gradcheck(total, tuple(p.values()), eps=1e-6, atol=1e-6, rtol=1e-4)


def test_gradients_of_the_solver_equal_those_of_the_formula():
    """Through doses, lag times, bioavailability, infusions and steady states."""
    generator = torch.Generator().manual_seed(7)
    doses = random_doses(generator, 3, 1)
    times = (80 * torch.rand(3, 6, generator=generator, dtype=torch.float64)).sort(1).values
    start = {
        n: 0.5 + torch.rand(3, generator=generator, dtype=torch.float64)
        for n in ("ka", "cl", "v", "lag", "f")
    }
    found = []
    for solver in ("formula", "torchdiffeq"):
        p = {n: x.clone().requires_grad_() for n, x in start.items()}
        delivery = nlme.Delivery(lag=p["lag"], bioavailability=p["f"])
        own = {n: p[n] for n in ("ka", "cl", "v")}
        if solver == "formula":
            y = nlme.one_compartment(times, doses, **own, delivery=delivery)
        else:
            x = nlme.solve(
                depot,
                torch.zeros(2).double(),
                times,
                own,
                doses=doses,
                delivery=delivery,
                rtol=1e-9,
            )
            y = x[..., 1] / p["v"].unsqueeze(-1)
        weights = torch.linspace(0.5, 1.5, y.numel(), dtype=torch.float64).reshape(y.shape)
        found.append(torch.stack(torch.autograd.grad((weights * y).sum(), list(p.values()))))
    assert torch.allclose(*found, rtol=1e-4, atol=1e-5 * float(found[0].abs().max()))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 3), st.floats(0.2, 4), st.floats(0.5, 30), st.floats(0, 12))
def test_a_steady_state_repeats_itself(k, interval, duration, lag):
    """Whatever the overlap of infusions and lag, one interval later nothing has changed."""
    one = ONE
    doses = Doses(
        100 + interval * torch.arange(4, dtype=torch.float64)[None],
        torch.full((1, 4), 7.0).double(),
        torch.full((1, 4), duration, dtype=torch.float64),
        intervals=torch.tensor([[interval, 0, 0, 0]], dtype=torch.float64),
        steady_state=torch.tensor([[1, 0, 0, 0]]),
    )
    phase = torch.linspace(0, 0.99 * interval, 7, dtype=torch.float64)
    times = torch.cat([100 + phase, 100 + 2 * interval + phase])[None]
    delivery = nlme.Delivery(lag=lag * one)
    y = nlme.one_compartment(times, doses, cl=k * one, v=one, delivery=delivery)[0]
    assert torch.allclose(y[:7], y[7:], rtol=1e-9)
    mean = 7.0 / interval / k
    assert float(y[:7].min()) <= mean * (1 + 1e-9)
    assert float(y[:7].max()) >= mean * (1 - 1e-9) or interval > 0.1


def test_boluses_superpose_infusions_of_length_zero():
    times = torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64)
    p = parameters()
    bolus = Doses(
        torch.zeros(1, 1).double(), torch.ones(1, 1).double(), compartment=torch.tensor([[2]])
    )
    short = Doses(
        torch.zeros(1, 1).double(),
        torch.ones(1, 1).double(),
        torch.full((1, 1), 1e-7).double(),
        torch.tensor([[2]]),
    )
    found = [nlme.one_compartment(times, d, **p) for d in (bolus, short)]
    assert torch.allclose(*found, rtol=1e-6)


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
