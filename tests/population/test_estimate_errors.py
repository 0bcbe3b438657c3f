"""Monte Carlo errors of the estimates against the scatter of repeated fits."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.cohort import Cohort, Series
from pyro_amortized.numerics.laplace import laplace_covariance
from pyro_amortized.population.estimate_errors import standard_error_errors

pytestmark = pytest.mark.slow


def decay(cohort):
    """Exponential decay with one random rate, from few noisy values: skewed posteriors."""
    typical = pyro.sample("typical", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega))
        y = cohort["y"]
        prediction = (-phi.exp().unsqueeze(-1) * y.times).exp()
        noise = dist.Normal(prediction, sigma[..., None])
        pyro.sample("y", noise.to_event(1), obs=y.values)


@pytest.fixture(scope="module")
def fits():
    generator = torch.Generator().manual_seed(2)
    rate = (0.8 * torch.randn(20, 1, generator=generator, dtype=torch.float64)).exp()
    times = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64).expand(20, -1)
    noise = 0.2 * torch.randn(20, 3, generator=generator, dtype=torch.float64)
    cohort = Cohort({"y": Series(times, (-rate * times).exp() + noise)})
    return [pa.fit_population(decay, cohort, num_draws=60, seed=seed) for seed in range(8)]


def test_repeated_fits_scatter_as_their_errors_say(fits):
    estimates = torch.stack([fit.vector for fit in fits])
    errors = torch.stack([fit.monte_carlo_errors for fit in fits]).pow(2).mean(0).sqrt()
    ratio = estimates.std(0) / errors
    assert ((ratio > 0.4) & (ratio < 2)).all(), ratio


def test_standard_errors_on_other_draws_scatter_as_their_errors_say(fits):
    """At the same estimates: those of repeated fits scatter with the estimates, too."""
    search, vector = fits[0].search, fits[0].vector
    found, errors = [], []
    for seed in range(16):
        generator = torch.Generator().manual_seed(seed)
        likelihood = search.likelihood(search.draw(vector, 100, generator))
        objective = search.objective(likelihood)
        covariance = laplace_covariance(objective, vector, search.scale).covariance
        found.append(covariance.diagonal().sqrt())
        errors.append(standard_error_errors(likelihood, vector, covariance))
    expected = torch.stack(errors).pow(2).mean(0).sqrt()
    ratio = torch.stack(found).std(0) / torch.stack(found).mean(0) / expected
    assert ((ratio > 0.5) & (ratio < 1.6)).all(), ratio


def test_large_errors_are_named(fits):
    relative = [(f.monte_carlo_errors / f.covariance.diagonal().sqrt()).max() for f in fits]
    named = ["of its standard error" in fit.message for fit in fits]
    assert named == [bool(x >= 0.1) for x in relative]
    changed = ["of the standard error of" in fit.message for fit in fits]
    assert changed == [bool(f.standard_error_errors.max() >= 0.1) for f in fits]


def test_the_default_makes_as_many_draws_as_they_need(fits):
    fit = pa.fit_population(decay, fits[0].cohort, seed=1)
    relative = fit.monte_carlo_errors / fit.covariance.diagonal().sqrt()
    assert fit.individuals.num_draws == 2000 or float(relative.max()) < 0.03
    assert fit.marginal.minus2ll_mc_error < 0.1
