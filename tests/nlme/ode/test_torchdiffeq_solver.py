"""Gradients through the solver: equal to those of closed forms."""

import numpy as np
import pytest
import torch

from pyro_amortized import nlme
from tests.nlme.kit import (
    TIMES,
    depot,
    f64,
    four_doses,
    observation_times,
    random_doses,
    random_parameters,
)


def test_solver_gradient_against_closed_form():
    p = {n: x.requires_grad_() for n, x in random_parameters().items()}
    times, doses = observation_times(), four_doses()
    closed = nlme.one_compartment(times, doses, **p).sum()
    states = nlme.solve(depot, torch.zeros(2), times, p, doses=doses)
    solved = (states[..., 1] / p["v"].unsqueeze(-1)).sum()
    for a, b in zip(
        torch.autograd.grad(closed, list(p.values())),
        torch.autograd.grad(solved, list(p.values())),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_gradients_of_the_solver_equal_those_of_the_formula():
    """Through doses, lag times, bioavailability, infusions and steady states."""
    generator = torch.Generator().manual_seed(7)
    doses = random_doses(generator, 3, 1)
    times = (80 * torch.rand(3, 6, generator=generator, dtype=torch.float64)).sort(1).values
    start = {
        n: 0.5 + torch.rand(3, generator=generator, dtype=torch.float64)
        for n in ("ka", "cl", "v", "lag", "f")
    }
    gradients = []
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
                rtol=1e-6,
            )
            y = x[..., 1] / p["v"].unsqueeze(-1)
        weights = torch.linspace(0.5, 1.5, y.numel(), dtype=torch.float64).reshape(y.shape)
        gradients.append(torch.stack(torch.autograd.grad((weights * y).sum(), list(p.values()))))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5 * float(gradients[0].abs().max()))


def test_gradients_of_captured_tensors_are_not_lost():
    """A population parameter that the right-hand side refers to by itself."""
    rate = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def decay(t, x, p):
        return -rate * x * p["one"].unsqueeze(-1)

    solution = nlme.integrate(decay, f64(1.0), TIMES, {"one": f64(1.0)})
    assert solution.solver == "torchdiffeq"
    (gradient,) = torch.autograd.grad(solution.states[0, 2, 0], rate)
    assert float(gradient) == pytest.approx(-np.exp(-1.3), rel=1e-5)
    with torch.no_grad():
        assert nlme.integrate(decay, f64(1.0), TIMES, {"one": f64(1.0)}).solver == "compiled"
