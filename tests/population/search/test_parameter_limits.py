"""Parameters whose maximum lies at the limit of their support are named as such."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.cohort import Cohort, Series
from tests.exact import linear_program
from tests.outcome_models import poisson_counts

TIMES = torch.linspace(0.0, 3.0, 8, dtype=torch.float64)


def growing_error(cohort):
    """Lines whose variance of the error may grow with time: sigma^2 + (growth t)^2."""
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    growth = pyro.sample("growth", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        y = cohort["y"]
        scale = (sigma[..., None] ** 2 + (growth[..., None] * y.times) ** 2).sqrt()
        prediction = phi[..., :1] + phi[..., 1:] * y.times
        pyro.sample("y", dist.Normal(prediction, scale).to_event(1), obs=y.values)


def lines(noise, num=20, slope_noise=0.4):
    """Lines of 20 individuals with given standard deviations of the error."""
    generator = torch.Generator().manual_seed(4)
    draws = torch.randn(3, num, 1, generator=generator, dtype=torch.float64)
    intercept, slope = 1 + 0.6 * draws[0], 0.5 + slope_noise * draws[1]
    error = noise * torch.randn(num, len(TIMES), generator=generator, dtype=torch.float64)
    times = TIMES.expand(num, -1)
    return Cohort({"y": Series(times, intercept + slope * times + error)})


@pytest.fixture(scope="module")
def falling():
    """An error that falls with time: the best growth is zero."""
    return lines(0.5 - 0.1 * TIMES)


@pytest.mark.slow
def test_an_error_at_zero_is_named_and_the_others_keep_their_errors(falling):
    fit = pa.fit_population(growing_error, falling, seed=1)
    assert "growth is at its limit 0: smaller values have the same likelihood" in fit.message
    assert fit.converged
    assert fit.undetermined == ()
    without = pa.fit_population(linear_program, falling, seed=1)
    assert fit.minus2ll == pytest.approx(without.minus2ll, abs=0.1)
    for name in ("mean", "omega", "sigma"):
        expected, error = without.estimates[name], without.standard_errors[name]
        assert ((fit.estimates[name] - expected).abs() < 0.05 * error).all()
        assert torch.allclose(fit.standard_errors[name], error, rtol=0.05)


@pytest.mark.slow
def test_a_growing_error_is_estimated():
    fit = pa.fit_population(growing_error, lines(0.1 + 0.3 * TIMES), seed=1)
    assert "limit" not in fit.message
    assert float(fit.estimates["growth"]) == pytest.approx(0.3, abs=0.1)


def correlated(cohort):
    """The linear program with correlated individual parameters."""
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    correlation = pyro.sample("correlation", dist.LKJCholesky(2, 1.0))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        scale = omega.unsqueeze(-1) * correlation
        phi = pyro.sample("phi", dist.MultivariateNormal(mean, scale_tril=scale))
        y = cohort["y"]
        prediction = phi[..., :1] + phi[..., 1:] * y.times
        noise = dist.Normal(prediction, sigma[..., None]).to_event(1)
        pyro.sample("y", noise, obs=y.values)


@pytest.mark.slow
def test_a_correlation_of_one_is_named_as_one():
    """Slope and intercept are the same random effect."""
    generator = torch.Generator().manual_seed(4)
    effect = torch.randn(20, 1, generator=generator, dtype=torch.float64)
    error = 0.3 * torch.randn(20, len(TIMES), generator=generator, dtype=torch.float64)
    values = 1 + 0.6 * effect + (0.5 + 0.4 * effect) * TIMES + error
    fit = pa.fit_population(correlated, Cohort({"y": Series(TIMES.expand(20, -1), values)}), seed=1)
    assert "their correlation is at its limit" in fit.message
    assert "phi[0]" in fit.message
    assert "phi[1]" in fit.message
    assert float(fit.estimates["correlation"][1, 0]) > 0.95


def zeros(num, width):
    times = torch.arange(width).double().expand(num, -1).clone()
    return Cohort({"y": Series(times, torch.zeros_like(times))})


def test_counts_that_are_all_zero_have_no_finite_estimate():
    """It is said before the fit, which does not end at the limits of a round."""
    with pytest.warns(pa.AmortizedWarning, match="All 60 recorded values of 'y' are 0"):
        fit = pa.fit_population(poisson_counts, zeros(12, 5), seed=1)
    assert abs(fit.minus2ll) < 0.1
    assert fit.num_rounds < 20


def test_an_infinite_limit_is_said_to_be_no_estimate():
    """The mean of a log rate of zero: every smaller one has the same likelihood."""
    start = {"mean": torch.tensor(-20.0), "omega": torch.tensor(0.5)}
    with pytest.warns(pa.AmortizedWarning, match="All 60 recorded values"):
        fit = pa.fit_population(poisson_counts, zeros(12, 5), start=start, seed=1)
    assert "mean has no finite estimate, because smaller values have the same" in fit.message
    assert fit.standard_errors["mean"].isnan()


@pytest.mark.filterwarnings("ignore:All 48 recorded values")
def test_the_mean_of_individuals_that_hardly_vary_moves_far_in_a_round():
    """The posteriors are as narrow as the population, with a standard deviation of 0.001."""
    start = {"mean": torch.tensor(-0.8), "omega": torch.tensor(0.001)}
    fit = pa.fit_population(poisson_counts, zeros(48, 1), start=start, seed=1)
    assert fit.num_rounds < 20
    assert abs(fit.minus2ll) < 0.1
