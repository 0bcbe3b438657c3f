"""An effect for everybody beside the mean: the data determine only their sum."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from tests.exact import exact_fit


def shifted(cohort):
    """The linear model with a shift d of all observations."""
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    d = pyro.sample("d", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        y = cohort["y"]
        prediction = phi[..., :1] + phi[..., 1:] * y.times + d[..., None]
        noise = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", noise, obs=y.values)


@pytest.fixture(scope="module")
def undetermined(linear):
    return pa.fit_population(shifted, linear, num_draws=500, seed=1)


def test_the_parameters_are_named_and_have_no_standard_error(linear, undetermined):
    fit = undetermined
    assert fit.undetermined == ("mean[0]", "d")
    assert "the data do not determine mean[0] and d separately" in fit.message
    assert not fit.converged
    assert fit.standard_errors["mean"].isnan().tolist() == [True, False]
    assert fit.standard_errors["d"].isnan()
    vector, _, covariance = exact_fit(linear)
    estimates, errors = fit.estimates, covariance.diagonal().sqrt()
    total = estimates["mean"] + torch.stack([estimates["d"], torch.zeros(())])
    assert ((total - vector[:2]) / errors[:2]).abs().max() < 0.1
    assert torch.allclose(fit.standard_errors["mean"][1], errors[1], rtol=0.05)


def test_it_has_no_profile(undetermined):
    with pytest.raises(FitError, match="no parameter 'd' with a standard error"):
        pa.profile_likelihood(undetermined, "d")


@pytest.mark.slow
def test_its_posterior_has_the_spread_of_the_prior(linear):
    """Given the sum, d has the variance 1 / (1 / 2^2 + 1 / 1^2) = 0.8."""
    mcmc = pa.AmortizedMCMC(shifted, 400, num_draws=200, seed=1)
    mcmc.run(linear)
    assert float(mcmc.get_samples()["d"].std()) == pytest.approx(math.sqrt(0.8), rel=0.15)
