"""Stimuli and switches: times at which the right-hand side changes are hit."""

import math

import pytest
import torch

from pyro_amortized import Doses, nlme
from pyro_amortized.errors import ModelError
from pyro_amortized.nlme.ode.compiled.time_switches import switch_times, time_differences
from pyro_amortized.nlme.ode.compiled.tracing import trace
from tests.nlme.kit import f64

K = 0.3


def pulse(t, x, p):
    """dx/dt = s(t) - k x with s = 100 for 0.01 h from t = 10 on."""
    on = (t >= 10.0) & (t < 10.01)
    return torch.where(on, 100.0, 0.0).unsqueeze(-1) - p["k"][:, None] * x


def exact(t):
    """The response to the pulse: 100 / k (1 - exp(-k d)) exp(-k (t - 10 - d))."""
    end = 100 / K * (1 - torch.exp(f64(-K * 0.01)))
    return torch.where(t < 10.0, 0.0, end * torch.exp(-K * (t - 10.01)))


TIMES = f64(1.0, 9.0, 11.0, 15.0, 40.0).expand(2, -1)


@pytest.mark.parametrize("solver", ["explicit", "implicit", "torchdiffeq"])
def test_a_short_pulse_is_hit(solver):
    x = nlme.solve(pulse, f64(0.0), TIMES, {"k": K}, switches=[10.0, 10.01], solver=solver)
    assert torch.allclose(x[..., 0], exact(TIMES), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("solver", ["explicit", "implicit"])
def test_a_compiled_system_finds_its_switches(solver):
    x = nlme.solve(pulse, f64(0.0), TIMES, {"k": K}, solver=solver)
    assert torch.allclose(x[..., 0], exact(TIMES), rtol=1e-5, atol=1e-8)


def test_a_short_pulse_is_stepped_over_by_torchdiffeq():
    """The reason for the argument."""
    x = nlme.solve(pulse, f64(0.0), TIMES, {"k": K}, solver="torchdiffeq")
    assert x[:, 2:].abs().max() < 1e-3


def test_switches_at_parameters_and_pieces_are_found():
    """A pulse of 0.01 h that begins at a parameter, which changes at 20 h."""

    def driven(t, x, p):
        since = t - p["at"]
        on = (since >= 0.0) & (since < p["length"])
        return torch.where(on, 100.0, 0.0).unsqueeze(-1) - K * x

    changes = f64(20.0).expand(2, 1)
    at = nlme.Piecewise(changes, {"at": f64(10.0, 30.0).expand(2, 2)})
    x = nlme.solve(driven, f64(0.0), TIMES, {"length": f64(0.01, 0.02)}, piecewise=at)[..., 0]
    for row, length in enumerate((0.01, 0.02)):
        one = 100 / K * (1 - math.exp(-K * length))

        def response(begin, one=one, length=length):
            later = torch.exp(-K * (TIMES[0] - begin - length))
            return torch.where(TIMES[0] < begin, 0.0, one * later)

        assert torch.allclose(x[row], response(10.0) + response(30.0), rtol=1e-5, atol=1e-8)


def test_what_a_comparison_must_be():
    """Linear in the time, and without states."""

    def found(f, **parameters):
        traced = trace(f, 1, tuple(parameters))
        times = switch_times(time_differences(traced.slopes), parameters, f64(0.0).reshape(1, 1))
        return sorted(times[0].tolist())

    p = {"a": f64(4.0).reshape(1, 1)}
    assert found(lambda t, x, p: (t - p["a"]).clamp(min=0)[:, None] * x, **p) == [4.0]
    assert found(lambda t, x, p: ((2 * t > p["a"]) * 1.0)[:, None] * x, **p) == [2.0]
    assert found(lambda t, x, p: ((torch.sin(t) > 0) * p["a"])[:, None] * x, **p) == [math.inf]
    traced = trace(lambda t, x, p: torch.where(x > t[:, None], -x, x), 1, ())
    assert time_differences(traced.slopes) == ()


@pytest.mark.parametrize("later", [torch.ge, torch.gt])
@pytest.mark.parametrize("solver", ["explicit", "torchdiffeq"])
def test_a_step_at_an_individual_time(later, solver):
    """dx/dt = s - k x from the time of each individual on, whatever the comparison."""

    def step(t, x, p):
        return torch.where(later(t, p["at"]), 2.0, 0.0).unsqueeze(-1) - K * x

    at = f64(10.0, 12.5)
    x = nlme.solve(
        step, f64(0.0), TIMES, {"at": at}, switches=at.unsqueeze(-1), solver=solver, rtol=1e-8
    )
    since = (TIMES - at.unsqueeze(-1)).clamp(min=0)
    assert torch.allclose(x[..., 0], 2 / K * (1 - torch.exp(-K * since)), rtol=1e-6, atol=1e-9)


def test_switches_and_doses_and_a_sample_at_a_switch():
    def decay(t, x, p):
        return torch.where(t >= 5.0, -2 * K, -K).unsqueeze(-1) * x

    doses = Doses(f64(0.0, 5.0).reshape(1, 2), f64(10.0, 10.0).reshape(1, 2))
    times = f64(4.0, 5.0, 6.0).reshape(1, 3)
    x = nlme.solve(decay, f64(0.0), times, {}, doses=doses, switches=[5.0])[0, :, 0]
    at_five = 10 * torch.exp(f64(-5 * K)) + 10
    expected = torch.cat([10 * torch.exp(f64(-4 * K)), at_five, at_five * torch.exp(f64(-2 * K))])
    assert torch.allclose(x, expected, rtol=1e-5)


def test_gradients_pass_through_switches():
    k = f64(K).requires_grad_()
    x = nlme.solve(pulse, f64(0.0), TIMES[:1], {"k": k}, switches=[10.0, 10.01], rtol=1e-8)
    (gradient,) = torch.autograd.grad(x[0, 3, 0], k)
    shift = 1e-4
    values = [
        100 / a * (1 - torch.exp(f64(-a * 0.01))) * torch.exp(f64(-a * 4.99))
        for a in (K + shift, K - shift)
    ]
    assert float(gradient) == pytest.approx(float((values[0] - values[1]) / (2 * shift)), rel=1e-4)


@pytest.mark.parametrize("switches", ["ten", torch.zeros(5, 2), torch.zeros(2, 2, 2)])
def test_wrong_switches(switches):
    with pytest.raises(ModelError, match="`switches` is"):
        nlme.solve(pulse, f64(0.0), TIMES, {"k": K}, switches=switches)


def test_a_stimulus_as_a_parameter_that_changes():
    """As on the page *ODE models*: on at 10 h and off at 12 h, of a size of each individual."""

    def driven(t, x, p):
        return p["stimulus"][:, None] - K * x

    dose = f64(1.0, 3.0)
    changes = f64(10.0, 12.0).expand(2, -1)
    level = torch.stack([torch.zeros(2).double(), dose, torch.zeros(2).double()], -1)
    piecewise = nlme.Piecewise(changes, {"stimulus": level})
    x = nlme.solve(driven, f64(0.0), TIMES, {}, piecewise=piecewise)[..., 0]

    def response(since):
        return 1 / K * (1 - torch.exp(-K * since.clamp(min=0)))

    expected = dose[:, None] * (response(TIMES - 10) - response(TIMES - 12))
    assert torch.allclose(x, expected, rtol=1e-5, atol=1e-7)
