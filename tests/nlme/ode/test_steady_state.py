"""Steady states of nonlinear systems, of constant infusions, and of systems that have none."""

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.cohort import Doses
from pyro_amortized.nlme.ode import REASONS
from pyro_amortized.runtime.solver_context import SolutionCache, caching
from tests.nlme.kit import TIMES, f64


def test_a_system_without_steady_state_has_a_status():
    def fills(t, x, p):
        return p["k"].unsqueeze(-1) * torch.zeros_like(x)

    doses = Doses(
        torch.zeros(1, 1).double(),
        torch.ones(1, 1).double(),
        intervals=torch.full((1, 1), 12.0).double(),
        steady_state=torch.ones(1, 1).long(),
    )
    for solver in ("compiled", "torchdiffeq"):
        solution = nlme.integrate(
            fills, f64(0.0), TIMES, {"k": f64(1.0)}, doses=doses, solver=solver
        )
        assert REASONS[int(solution.status[0])] == "no steady state"


@pytest.mark.slow
def test_nonlinear_steady_state():
    """Michaelis-Menten elimination: the state repeats itself after every dose."""

    def saturable(t, x, p):
        return -p["vmax"].unsqueeze(-1) * x / (10 + x)

    times = torch.tensor([[1.0, 13.0, 25.0, 37.0]], dtype=torch.float64)
    doses = Doses(
        torch.tensor([[0.0, 12.0, 24.0, 36.0]], dtype=torch.float64),
        torch.full((1, 4), 50.0).double(),
        intervals=torch.tensor([[12.0, 0, 0, 0]], dtype=torch.float64),
        steady_state=torch.tensor([[1, 0, 0, 0]]),
    )
    for solver in ("compiled", "torchdiffeq"):
        x = nlme.solve(
            saturable,
            f64(0.0),
            times,
            {"vmax": f64(6.0)},
            doses=doses,
            solver=solver,
            rtol=1e-9,
        )
        assert torch.allclose(x[0, :, 0], x[0, :1, 0].expand(4), rtol=1e-6)
    vmax = f64(6.0).requires_grad_()
    x = nlme.solve(saturable, f64(0.0), times, {"vmax": vmax}, doses=doses, rtol=1e-9)
    (gradient,) = torch.autograd.grad(x[0, 0, 0], vmax)
    ends = [
        nlme.solve(saturable, f64(0.0), times, {"vmax": f64(v)}, doses=doses, rtol=1e-10)[0, 0, 0]
        for v in (6.001, 5.999)
    ]
    assert float(gradient) == pytest.approx(float(ends[0] - ends[1]) / 0.002, rel=1e-4)


def test_stored_steady_states_differ_between_compartments():
    """The steady state of a constant infusion is no event; its compartment is part of the key."""

    def linear(t, x, p):
        return -p["k"].unsqueeze(-1) * x

    def level(compartment):
        doses = Doses(
            torch.zeros(1, 1).double(),
            torch.zeros(1, 1).double(),
            rates=f64(3.0).unsqueeze(0),
            steady_state=torch.ones(1, 1, dtype=torch.long),
            compartment=torch.tensor([[compartment]]),
        )
        states = nlme.solve(
            linear,
            f64(0.0, 0.0),
            TIMES[:, :1],
            {"k": f64(1.0)},
            doses=doses,
            solver="torchdiffeq",
        )
        return states[0, 0].tolist()

    with caching(SolutionCache()):
        assert level(1) == pytest.approx([3.0, 0.0], abs=1e-5)
        assert level(2) == pytest.approx([0.0, 3.0], abs=1e-5)
