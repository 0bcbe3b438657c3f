"""Compiled solvers: against SciPy and exact solutions; stiffness, captured values, threads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from pyro_amortized import nlme
from pyro_amortized.nlme.ode.compiled import systems as compiled
from tests.nlme.kit import TIMES, decay, f64


def robertson(t, x, p):
    a, b, c = x.unbind(-1)
    slow, fast, back = p["k"] * a, 3e7 * b * b, 1e4 * b * c
    return torch.stack([-slow + back, slow - back - fast, fast], -1)


def relaxation(t, x, p):
    return p["k"].unsqueeze(-1) * (torch.cos(t).unsqueeze(-1) - x)


@pytest.mark.parametrize("method", ["explicit", "implicit"])
def test_order_of_the_solvers(method):
    """Halving the tolerance by 1e4 reduces the error in proportion; dense output included."""

    def spiral(t, x, p):
        return torch.stack([p["k"] * x[:, 1] - x[:, 0] * t, -x[:, 0] - x[:, 1] * t], -1)

    times = torch.linspace(0, 3, 40, dtype=torch.float64)[None]
    truth = solve_ivp(
        lambda t, x: (x[1] - x[0] * t, -x[0] - x[1] * t),
        (0, 3),
        (1.0, 0.0),
        "DOP853",
        times[0].numpy(),
        rtol=1e-13,
        atol=1e-14,
    ).y.T
    for rtol in (1e-4, 1e-8):
        x = nlme.solve(spiral, f64(1.0, 0.0), times, {"k": f64(1.0)}, solver=method, rtol=rtol)
        assert float((x[0] - torch.from_numpy(truth)).abs().max()) < 50 * rtol


@pytest.mark.slow
def test_stiff_systems_are_detected_and_solved():
    times = torch.tensor([[0.4, 4.0, 40.0, 400.0, 4000.0]], dtype=torch.float64)
    solution = nlme.integrate(robertson, f64(1, 0, 0), times, {"k": f64(0.04)}, rtol=1e-8)
    assert not solution.failed.any()
    # Published solution (Hairer and Wanner, IVP test set).
    exact = [0.9851721, 0.9055186, 0.7158271, 0.4505186, 0.1832022]
    assert solution.states[0, :, 0].tolist() == pytest.approx(exact, rel=1e-5)


@pytest.mark.slow
def test_every_individual_has_its_own_steps():
    """A stiff individual does not change the steps and results of the others."""
    k = f64(1.0, 1e4, 2.0)
    alone = nlme.solve(relaxation, f64(0.0), TIMES, {"k": k[:1]})
    together = nlme.solve(relaxation, f64(0.0), TIMES.expand(3, -1), {"k": k})
    assert torch.equal(alone[0], together[0])


@pytest.mark.slow
@pytest.mark.parametrize(("first", "method"), [(1e5, "implicit"), (1.0, "explicit")])
def test_the_method_is_chosen_for_each_call(first, method):
    """By its first rows, and whatever an earlier call has found: a population far from the data may
    be stiff where the fitted one is not.
    """
    k, times = torch.full((100,), first).double(), TIMES.expand(100, -1)
    k[50:] = 2.0
    nlme.solve(relaxation, f64(0.0), times, {"k": torch.full((100,), 1e5).double()})
    chosen = nlme.solve(relaxation, f64(0.0), times, {"k": k})
    every = nlme.solve(relaxation, f64(0.0), times, {"k": k}, solver=method)
    assert torch.equal(chosen[50:], every[50:])


@pytest.mark.slow
def test_no_rows_have_no_solution():
    none = TIMES[:0]
    x = nlme.solve(relaxation, f64(0.0), none, {"k": torch.ones(0).double()})
    assert x.shape == (0, TIMES.shape[1], 1)


@pytest.mark.slow
def test_captured_tensors_are_read_at_every_call():
    """A right-hand side that refers to a tensor is traced at every call: the tensor may change."""
    rate = torch.tensor(1.0, dtype=torch.float64)

    def decay(t, x, p):
        return -rate * x * p["one"].unsqueeze(-1)

    first = nlme.solve(decay, f64(1.0), TIMES, {"one": f64(1.0)})
    rate.fill_(2.0)
    second = nlme.solve(decay, f64(1.0), TIMES, {"one": f64(1.0)})
    assert float(first[0, 2, 0]) == pytest.approx(np.exp(-1), rel=1e-6)
    assert float(second[0, 2, 0]) == pytest.approx(np.exp(-2), rel=1e-6)


@pytest.mark.slow
def test_captured_values_that_keep_changing_are_compiled_eight_times(caplog, monkeypatch):
    """Here two times: every compilation takes seconds."""
    assert compiled.LIMITS.max_versions == 8
    monkeypatch.setattr(compiled, "LIMITS", replace(compiled.LIMITS, max_versions=2))
    rate = torch.tensor(1.0, dtype=torch.float64)

    def decay(t, x, p):
        return -rate * x

    solvers = []
    for j in range(4):
        rate.fill_(1.0 + j / 10)
        solution = nlme.integrate(decay, f64(1.0), TIMES, {}, solver="auto")
        solvers.append(solution.solver)
        assert float(solution.states[0, 2, 0]) == pytest.approx(np.exp(-1 - j / 10), rel=1e-6)
    assert solvers == ["compiled"] * 2 + ["torchdiffeq"] * 2
    assert caplog.text.count("keep changing; pass them as parameters") == 1


@pytest.mark.slow
def test_closures_over_different_numbers_differ():
    def with_rate(rate):
        return lambda t, x, p: -rate * x

    for rate in (1.0, 2.0, 1.0):
        x = nlme.solve(with_rate(rate), f64(1.0), TIMES, {"k": f64(1.0)})
        assert float(x[0, 2, 0]) == pytest.approx(np.exp(-rate), rel=1e-6)


@pytest.mark.slow
def test_large_systems_are_solved_in_loops():
    def diffusion(t, x, p):
        left, right = torch.roll(x, 1, -1), torch.roll(x, -1, -1)
        return p["d"].unsqueeze(-1) * (left + right - 2 * x)

    start = torch.zeros(20, dtype=torch.float64)
    start[0] = 1.0
    for solver in ("explicit", "implicit", "torchdiffeq"):
        x = nlme.solve(diffusion, start, TIMES, {"d": f64(3.0)}, solver=solver, rtol=1e-8)
        matrix = torch.roll(torch.eye(20), 1, 0) + torch.roll(torch.eye(20), -1, 0)
        matrix = 3.0 * (matrix - 2 * torch.eye(20)).double()
        exact = torch.linalg.matrix_exp(matrix * 2.0) @ start
        assert torch.allclose(x[0, -1], exact, atol=1e-6)


def test_the_number_of_stored_refusals_is_limited():
    """A key for each value of a captured number must not grow for ever."""

    def made(k):
        def mixing(t, x, p):
            return -k * x * x.mean()

        return mixing

    for k in range(compiled.LIMITS.max_cached + 3):
        nlme.solve(made(float(k)), f64(1.0), TIMES[:, :1], {"k": f64(1.0)})
    assert len(compiled._refused) <= compiled.LIMITS.max_cached


def test_dtype_and_threads():
    """float32 in, float32 out; the same rows whatever the number of threads."""
    k = torch.rand(20_000)
    times = TIMES.float().expand(20_000, -1)
    alone = nlme.solve(decay, torch.ones(1), times, {"k": k})
    assert alone.dtype == torch.float32
    num_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        threaded = nlme.solve(decay, torch.ones(1), times, {"k": k})
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(alone, threaded)
