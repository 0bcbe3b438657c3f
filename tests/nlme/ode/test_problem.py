"""Calls of the solver: shapes, parameters that change, and solutions that are stored."""

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.runtime.solver_context import SolutionCache, caching
from tests.nlme.kit import TIMES, decay, f64


@pytest.mark.slow
def test_draw_dimensions_broadcast():
    k = torch.rand(5, 3, dtype=torch.float64)
    times = TIMES.expand(3, -1)
    start = torch.rand(3, 1, dtype=torch.float64)
    for solver in ("compiled", "torchdiffeq"):
        x = nlme.solve(decay, start, times, {"k": k}, solver=solver)
        assert x.shape == (5, 3, 4, 1)
        exact = start[None, :, None] * torch.exp(-k[..., None, None] * times[None, ..., None])
        assert torch.allclose(x, exact, rtol=1e-6)


def test_parameters_that_change_at_given_times():
    def decay(t, x, p):
        return -(p["k"] * p["scale"]).unsqueeze(-1) * x

    changes = torch.tensor([[1.0], [torch.inf]], dtype=torch.float64)
    k = torch.tensor([[1.0, 3.0], [2.0, 9.0]], dtype=torch.float64)
    pieces = nlme.Piecewise(changes, {"k": k})
    times = TIMES.expand(2, -1)
    for solver in ("compiled", "torchdiffeq"):
        x = nlme.solve(
            decay, f64(1.0), times, {"scale": f64(1.0, 1.0)}, piecewise=pieces, solver=solver
        )
        exact = [[0, 0.5, 1.0, 4.0], [0, 1.0, 2.0, 4.0]]
        assert torch.allclose(-x[..., 0].log(), f64(*exact[0], *exact[1]).view(2, 4), atol=1e-6)


def test_solutions_are_stored_for_equal_inputs():
    def solved(k):
        return nlme.solve(decay, f64(1.0), TIMES, {"k": f64(k)}, solver="torchdiffeq")

    with caching(SolutionCache()) as cache:
        first = solved(1.0)
        repeated = solved(1.0)
        assert cache.num_hits == 1
        assert repeated is first
        other = solved(2.0)
        assert cache.num_hits == 1
        assert not torch.equal(first, other)
    assert solved(1.0) is not first
