import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from pyro_amortized import Doses, datasets, nlme
from pyro_amortized.errors import CohortError, ModelError


def dosing(num=4, seed=0):
    """Boluses into depot and central, an infusion into central, padding."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.tensor([[0.0, 5.0, 9.0, 12.0]]).repeat(num, 1).double()
    times += torch.rand(num, 4, generator=generator).double()
    amounts = 50 + 50 * torch.rand(num, 4, generator=generator).double()
    durations = torch.tensor([[0.0, 0.0, 2.0, 0.0]]).repeat(num, 1).double()
    compartment = torch.tensor([[1, 2, 2, 1]]).repeat(num, 1)
    given = torch.tensor([[True, True, True, True]]).repeat(num, 1)
    given[0, 3] = False
    return Doses(times, amounts, durations, compartment, given)


def parameters(num=4, draws=()):
    generator = torch.Generator().manual_seed(1)
    shape = (*draws, num)
    ka = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
    cl = 2 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return {"ka": ka, "cl": cl, "v": 10 + 5 * torch.rand(shape, generator=generator).double()}


def oral(t, x, p):
    depot, central = x.unbind(-1)
    absorbed = p["ka"] * depot
    return torch.stack([-absorbed, absorbed - p["cl"] / p["v"] * central], -1)


def observation_times(num=4):
    base = torch.linspace(0.1, 24, 15, dtype=torch.float64)
    return base * (1 + 0.01 * torch.arange(num).double().unsqueeze(-1))


@pytest.mark.parametrize("draws", [(), (3,)])
def test_ode_equals_closed_form(draws):
    p, doses, times = parameters(draws=draws), dosing(), observation_times()
    closed = nlme.one_compartment(times, doses, **p)
    states = nlme.solve(oral, torch.zeros(2), times, p, doses=doses)
    assert states.shape == (*draws, 4, 15, 2)
    assert torch.allclose(states[..., 1] / p["v"].unsqueeze(-1), closed, rtol=1e-5, atol=1e-6)


def test_intravenous_closed_form_equals_ode():
    p = parameters()
    doses = dosing()
    central = Doses(doses.times, doses.amounts, doses.durations, given=doses.given)

    def decay(t, x, p):
        return -(p["cl"] / p["v"]).unsqueeze(-1) * x

    closed = nlme.one_compartment(observation_times(), central, cl=p["cl"], v=p["v"])
    states = nlme.solve(decay, torch.zeros(1), observation_times(), p, doses=central)
    assert torch.allclose(states[..., 0] / p["v"].unsqueeze(-1), closed, rtol=1e-5, atol=1e-7)


def test_closed_form_against_scipy():
    p, doses, times = parameters(1), dosing(1), observation_times(1)
    ka, cl, v = (float(p[n]) for n in ("ka", "cl", "v"))
    state, now, found = [0.0, 0.0], 0.0, []
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
            found.append(state[1] / v)
        elif j < 2:
            state = [
                state[0] + (j == 0) * float(doses.amounts[0, j]),
                state[1] + (j == 1) * float(doses.amounts[0, j]),
            ]
    closed = nlme.one_compartment(times, doses, **p)[0]
    assert closed.tolist() == pytest.approx(found, rel=1e-4, abs=1e-6)


def test_equal_rates_have_value_and_gradient():
    """ka = k: the textbook formula is 0 / 0 there."""
    doses = Doses(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    times = torch.tensor([[1.0, 5.0]], dtype=torch.float64)

    def concentration(ka):
        one = torch.ones(1, dtype=torch.float64)
        return nlme.one_compartment(times, doses, ka=ka, cl=0.2 * one, v=one)

    ka = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    value = concentration(ka)
    assert torch.allclose(value, 0.2 * times * torch.exp(-0.2 * times))
    gradient = torch.autograd.grad(value[0, 1], ka)[0]
    step = 1e-4
    numeric = (concentration(ka + step) - concentration(ka - step))[0, 1] / (2 * step)
    assert torch.allclose(gradient, numeric, rtol=1e-3)


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


def test_solver_gradient_against_closed_form():
    p = {n: x.requires_grad_() for n, x in parameters().items()}
    times, doses = observation_times(), dosing()
    closed = nlme.one_compartment(times, doses, **p).sum()
    states = nlme.solve(oral, torch.zeros(2), times, p, doses=doses)
    solved = (states[..., 1] / p["v"].unsqueeze(-1)).sum()
    for a, b in zip(
        torch.autograd.grad(closed, list(p.values())),
        torch.autograd.grad(solved, list(p.values())),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_one_bad_individual_does_not_spoil_the_batch():
    def grow(t, x, p):
        return p["a"].unsqueeze(-1) * x**2  # explodes in finite time where a is large

    a = torch.tensor([0.1, 50.0, 0.2], dtype=torch.float64)
    times = torch.tensor([[0.5, 1.0]], dtype=torch.float64).repeat(3, 1)
    x = nlme.solve(grow, torch.ones(1), times, {"a": a})
    exact = 1 / (1 - a.unsqueeze(-1) * times)
    assert x[1].isnan().any()
    assert torch.allclose(x[[0, 2], :, 0], exact[[0, 2]], rtol=1e-5)


def test_events_before_the_start_and_unknown_compartments():
    p = parameters(1)
    with pytest.raises(ModelError, match="before the start"):
        nlme.solve(oral, torch.zeros(2), torch.tensor([[-1.0]]).double(), p)
    doses = Doses(torch.zeros(1, 1).double(), torch.ones(1, 1), compartment=torch.tensor([[3]]))
    with pytest.raises(ModelError, match="compartment 3"):
        nlme.solve(oral, torch.zeros(2), torch.ones(1, 1).double(), p, doses=doses)
    with pytest.raises(ModelError, match="compartment 3"):
        nlme.one_compartment(torch.ones(1, 1), doses, **p)


def test_residual_errors():
    f = torch.tensor([0.0, 3.0])
    assert nlme.combined_error(f, torch.tensor(4.0), torch.tensor(1.0)).scale.tolist() == [4.0, 5.0]
    assert nlme.additive_error(f, torch.tensor(2.0)).scale.tolist() == [2.0, 2.0]
    assert nlme.proportional_error(f, torch.tensor(0.5)).scale.tolist() == pytest.approx(
        [1e-6, 1.5]
    )


def test_theophylline_is_the_published_data():
    cohort = datasets.theophylline()
    assert len(cohort) == 12
    assert cohort.num_observations == 132
    assert float(cohort.doses.amounts[0, 0]) == pytest.approx(4.02 * 79.6)
    assert float(cohort["concentration"].values.sum()) == pytest.approx(654.78, abs=0.005)
    assert isinstance(CohortError("a", "b", "c"), ValueError)
