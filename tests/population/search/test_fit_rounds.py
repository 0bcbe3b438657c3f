"""Rounds without a guide, against the exact linear Gaussian model."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from tests.exact import exact_fit, linear_program

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def far(linear):
    """A fit that starts far from its end, without a guide."""
    start = {
        "mean": torch.tensor([4.0, -3.0], dtype=torch.float64),
        "omega": torch.tensor([0.05, 3.0], dtype=torch.float64),
        "sigma": torch.tensor(3.0, dtype=torch.float64),
    }
    return pa.fit_population(linear_program, linear, start=start, precision=0.001, seed=2)


def test_a_fit_without_a_guide_finds_the_exact_maximum_from_afar(linear, far):
    vector, value, covariance = exact_fit(linear)
    errors = covariance.diagonal().sqrt()
    assert far.converged, far.message
    assert far.guide is None
    assert ((far.vector - vector) / errors).abs().max() < 0.05
    assert (far.covariance.diagonal().sqrt() / errors - 1).abs().max() < 0.03
    assert abs(far.minus2ll + 2 * value) < 4 * far.marginal.minus2ll_mc_error + 1e-6


def test_the_requested_precision_is_reached(far):
    """Of the further draws only the likelihood is kept."""
    assert far.marginal.minus2ll_mc_error < 0.001
    assert int(far.marginal.num_draws.max()) > far.individuals.num_draws == 300
    assert far.individuals.marginal_estimate.mc_error.norm() > far.marginal.mc_error.norm()


def test_a_fit_without_a_guide_is_saved_and_loaded(far, tmp_path):
    far.save(tmp_path / "fit")
    assert not (tmp_path / "fit" / "guide").exists()
    loaded = pa.load_fit(tmp_path / "fit", linear_program)
    assert loaded.guide is None
    assert torch.equal(loaded.vector, far.vector)
    assert loaded.minus2ll == far.minus2ll
    assert torch.equal(loaded.marginal.num_draws, far.marginal.num_draws)
    with pytest.raises(FitError, match="without a guide"):
        _ = loaded.trained_guide
