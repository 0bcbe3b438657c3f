"""An effect for everybody beside the mean: the data determine only their sum."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from tests.exact import exact_fit

pytestmark = pytest.mark.slow


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


def test_its_profile_is_flat(undetermined):
    profile = pa.profile_likelihood(undetermined, "d")
    assert (profile.lower, profile.upper) == (-math.inf, math.inf)
    values = torch.linspace(-1.0, 1.0, 5) * 2.0 + undetermined.estimates["d"]
    assert torch.allclose(profile.values, values.to(profile.values), rtol=0.05)
    assert profile.minus2ll.abs().max() < 0.05


def test_the_profiles_of_the_others_are_those_of_the_determined_model(linear, undetermined):
    """The sum of the mean and the shift is maximised again for every value."""
    profile = pa.profile_likelihood(undetermined, "omega[0]")
    vector, _, covariance = exact_fit(linear)
    center, error = float(vector[2]), float(covariance[2, 2].sqrt())
    assert -2.5 < (math.log(profile.lower) - center) / error < -1.5
    assert 1.5 < (math.log(profile.upper) - center) / error < 2.5


def test_draws_of_the_population_have_the_spread_of_the_prior(linear, undetermined):
    """Given the sum, d has the variance 1 / (1 / 2^2 + 1 / 1^2) = 0.8."""
    draws = pa.sample_population(undetermined, num_draws=1000, seed=1)
    assert float(draws.draws["d"].std()) == pytest.approx(math.sqrt(0.8), rel=0.15)
    total = draws.draws["mean"][:, 0] + draws.draws["d"]
    _, _, covariance = exact_fit(linear)
    assert float(total.std()) == pytest.approx(float(covariance[0, 0].sqrt()), rel=0.2)


def test_its_posterior_has_the_spread_of_the_prior(linear):
    """Given the sum, d has the variance 1 / (1 / 2^2 + 1 / 1^2) = 0.8."""
    mcmc = pa.AmortizedMCMC(shifted, 400, num_draws=200, seed=1)
    mcmc.run(linear)
    assert float(mcmc.get_samples()["d"].std()) == pytest.approx(math.sqrt(0.8), rel=0.15)


def test_a_gradient_that_the_program_cuts_is_named():
    def without_mean(cohort):  # the optimiser converges: there is nothing to climb
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        spread = pyro.sample("spread", dist.HalfNormal(2.0))
        y = cohort["y"]
        with pyro.plate("individual", len(cohort)):
            level = pyro.sample("level", dist.Normal(mean.item(), spread))
            line = level[..., None] + 0.5 * y.times
            pyro.sample("y", dist.Normal(line, 0.3).to_event(1), obs=y.values)

    def program(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        spread = pyro.sample("spread", dist.HalfNormal(2.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        y = cohort["y"]
        with pyro.plate("individual", len(cohort)):
            level = pyro.sample("level", dist.Normal(mean, spread))
            line = (level[..., None] + 0.5 * y.times).detach()
            pyro.sample("y", dist.Normal(line, sigma[..., None]).to_event(1), obs=y.values)

    generator = torch.Generator().manual_seed(0)
    times = torch.arange(5.0).expand(8, -1)
    noise = torch.randn(8, 6, generator=generator)
    values = 1 + 0.5 * times + 0.8 * noise[:, :1] + 0.3 * noise[:, 1:]
    fit = pa.fit_population(program, pa.Cohort({"y": pa.Series(times, values)}), seed=1)
    assert not fit.converged
    assert "is not that of the likelihood: `.detach()`" in fit.message
    fit = pa.fit_population(without_mean, pa.Cohort({"y": pa.Series(times, values)}), seed=1)
    assert "the gradient of mean is not that of the likelihood" in fit.message
    assert "separately" not in fit.message
