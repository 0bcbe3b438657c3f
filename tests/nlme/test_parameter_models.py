"""Distributions of individual parameters: covariances and integrals."""

import math

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import ModelError
from tests.nlme.kit import f64


def test_random_effects_have_their_covariance():
    omega = f64(0.5, 2.0)
    correlation = torch.linalg.cholesky(torch.tensor([[1.0, 0.6], [0.6, 1.0]]).double())
    distribution = nlme.random_effects(torch.zeros(3, 2).double(), omega, correlation)
    assert distribution.batch_shape == (3,)
    exact = torch.tensor([[0.25, 0.6], [0.6, 4.0]]).double()
    assert torch.allclose(distribution.covariance_matrix[0], exact)
    batched = nlme.random_effects(torch.zeros(5, 3, 2).double(), omega.expand(5, 2))
    assert batched.batch_shape == (5, 3)
    design = torch.tensor([[1.0, 1.0]]).double()
    summed = nlme.random_effects(torch.zeros(3, 1).double(), omega, correlation, design)
    assert float(summed.covariance_matrix[0]) == pytest.approx(0.25 + 4.0 + 1.2)
    with pytest.raises(ModelError, match="one random effect or more"):
        nlme.random_effects(torch.zeros(3, 3).double(), omega, design=torch.ones(3, 2).double())


def test_block_factor_and_design_matrices():
    full = torch.linalg.cholesky(torch.tensor([[1.0, 0.3], [0.3, 2.0]]).double())
    joined = nlme.block_factor([full, torch.eye(1).double()])
    assert torch.allclose((joined @ joined.T)[:2, :2], full @ full.T)
    with pytest.raises(ModelError, match="one column per coefficient"):
        nlme.fixed_effects(torch.ones(2, 2, 3), torch.ones(2))


def test_logitnormal_is_a_density_between_its_bounds():
    distribution = nlme.logitnormal(f64(1.5)[0], f64(0.9)[0], 1.0, 4.0)
    grid = torch.linspace(1.0, 4.0, 30_001, dtype=torch.float64)[1:-1]
    assert float(torch.trapezoid(distribution.log_prob(grid).exp(), grid)) == pytest.approx(
        1.0, abs=1e-6
    )
    assert float((distribution.sample((20_000,)) < 1.5).double().mean()) == pytest.approx(
        0.5, abs=0.02
    )


def test_box_cox_is_smooth_in_its_shape():
    eta = f64(-1.0, 0.5)
    for shape in (-1e-4, -1e-6, 0.0, 1e-6, 1e-4):
        transformed = nlme.box_cox(eta, f64(shape))
        assert torch.allclose(transformed, eta + shape * eta**2 / 2, atol=1e-8)
    assert float(nlme.box_cox(f64(0.5), f64(2.0))) == pytest.approx((math.e - 1) / 2)


def test_random_effects_of_two_dtypes():
    """Population sites of a plain program are in float32, and covariates in float64."""
    law = nlme.random_effects(
        torch.zeros(4, 2, dtype=torch.float64), torch.ones(2), torch.eye(2, dtype=torch.float32)
    )
    assert law.sample().dtype == torch.float64
    assert law.log_prob(torch.zeros(4, 2).double()).shape == (4,)
