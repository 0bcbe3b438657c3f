import pytest
import torch

from pyro_amortized.networks.rational_quadratic_spline import (
    BOUND,
    inverse_spline,
    num_parameters,
    spline,
)


def points(num=400, num_bins=8, spread=1.5):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num, 2, generator=generator, dtype=torch.float64) * 3
    raw = torch.randn(num, 2, num_parameters(num_bins), generator=generator, dtype=torch.float64)
    return x, raw * spread


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences():
    x, raw = points(30)
    assert torch.autograd.gradcheck(spline, (x.requires_grad_(), raw.requires_grad_()))


def test_inverse_is_the_inverse_and_differentiable():
    x, raw = points()
    y, _ = spline(x, raw)
    point, log_slope = inverse_spline(y, raw)
    assert torch.allclose(point, x, atol=1e-9)
    assert torch.allclose(log_slope, spline(x, raw)[1], atol=1e-7)
    some = y[:10].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: inverse_spline(y, raw[:10])[0], (some,))


def test_log_slope_is_the_log_of_the_derivative():
    x, raw = points()
    x.requires_grad_()
    y, log_slope = spline(x, raw)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(derivative.log(), log_slope, atol=1e-9)
    assert (derivative > 0).all()


def test_identity_outside_and_at_zero():
    x, raw = points()
    y, log_slope = spline(x, raw)
    outside = x.abs() >= BOUND
    assert outside.any()
    assert torch.equal(y[outside], x[outside])
    assert (log_slope[outside] == 0).all()
    y, log_slope = spline(x, torch.zeros_like(raw))
    assert torch.allclose(y, x, atol=1e-12)
    assert torch.allclose(log_slope, torch.zeros_like(x), atol=1e-12)


def test_extreme_parameters_stay_finite_and_monotone():
    x = torch.linspace(-6, 6, 500).unsqueeze(-1)
    raw = torch.full((500, 1, 23), -50.0)
    raw[..., ::3] = 50.0
    y, log_slope = spline(x, raw)
    assert y.isfinite().all()
    assert log_slope.isfinite().all()
    assert (y.diff(dim=0) >= 0).all()
