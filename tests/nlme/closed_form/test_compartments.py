"""Closed forms: against ODEs, SciPy and integrals; gradients, extreme and equal rates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from pyro_amortized import Doses, nlme
from tests.nlme.kit import depot, four_doses, observation_times, random_doses, random_parameters


@pytest.mark.parametrize("draws", [(), (3,)])
def test_ode_equals_closed_form(draws):
    p, doses, times = random_parameters(draws=draws), four_doses(), observation_times()
    closed = nlme.one_compartment(times, doses, **p)
    states = nlme.solve(depot, torch.zeros(2), times, p, doses=doses)
    assert states.shape == (*draws, 4, 15, 2)
    assert torch.allclose(states[..., 1] / p["v"].unsqueeze(-1), closed, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_intravenous_closed_form_equals_ode():
    p = random_parameters()
    doses = four_doses()
    central = Doses(doses.times, doses.amounts, doses.durations, given=doses.given)

    def decay(t, x, p):
        return -(p["cl"] / p["v"]).unsqueeze(-1) * x

    closed = nlme.one_compartment(observation_times(), central, cl=p["cl"], v=p["v"])
    states = nlme.solve(decay, torch.zeros(1), observation_times(), p, doses=central)
    assert torch.allclose(states[..., 0] / p["v"].unsqueeze(-1), closed, rtol=1e-5, atol=1e-7)


def test_closed_form_against_scipy():
    p, doses, times = random_parameters(1), four_doses(1), observation_times(1)
    ka, cl, v = (float(p[n]) for n in ("ka", "cl", "v"))
    state, now, concentrations = [0.0, 0.0], 0.0, []
    events = [(float(doses.times[0, j]), j) for j in range(3)]
    stops = sorted([(t, "dose", j) for t, j in events] + [(float(t), "read", 0) for t in times[0]])
    infusion = (events[2][0], events[2][0] + 2.0, float(doses.amounts[0, 2]) / 2.0)

    def slope(t, x):
        rate = infusion[2] if infusion[0] <= t < infusion[1] else 0.0
        return [-ka * x[0], ka * x[0] - cl / v * x[1] + rate]

    for t, kind, j in stops:
        if t > now:
            state = solve_ivp(slope, (now, t), state, rtol=1e-9, atol=1e-10, max_step=0.05).y[:, -1]
            now = t
        if kind == "read":
            concentrations.append(state[1] / v)
        elif j < 2:
            state = [
                state[0] + (j == 0) * float(doses.amounts[0, j]),
                state[1] + (j == 1) * float(doses.amounts[0, j]),
            ]
    closed = nlme.one_compartment(times, doses, **p)[0]
    assert closed.tolist() == pytest.approx(concentrations, rel=1e-4, abs=1e-6)


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


@pytest.mark.slow
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


def test_extreme_parameters_stay_finite():
    doses = Doses(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    times = torch.tensor([[0.0, 1.0, 1000.0]], dtype=torch.float64)
    for ka in (1e-8, 1e8):
        for cl in (1e-8, 1e8):
            p = {
                n: torch.tensor([x]).double().requires_grad_()
                for n, x in (("ka", ka), ("cl", cl), ("v", 1.0))
            }
            value = nlme.one_compartment(times, doses, **p)
            assert value.isfinite().all()
            assert all(
                g.isfinite().all() for g in torch.autograd.grad(value.sum(), list(p.values()))
            )


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 5), st.floats(0.1, 10), st.floats(1, 50))
def test_area_under_the_curve_is_dose_over_clearance(ka, cl, v):
    doses = Doses(torch.zeros(1, 1).double(), torch.full((1, 1), 7.0).double())
    horizon = 60 * max(1 / ka, v / cl)
    times = torch.linspace(0, horizon, 60_001, dtype=torch.float64).unsqueeze(0)
    p = {n: torch.tensor([x]).double() for n, x in (("ka", ka), ("cl", cl), ("v", v))}
    area = torch.trapezoid(nlme.one_compartment(times, doses, **p)[0], times[0])
    assert float(area) == pytest.approx(7.0 / cl, rel=1e-3)
