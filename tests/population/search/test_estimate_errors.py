"""Monte Carlo errors of the estimates against the scatter of repeated fits."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.cohort import Cohort, Series
from tests.exact import exact_log_marginal, linear_cohort, linear_program, unpack

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


def test_standard_errors_of_repeated_fits_scatter_as_their_errors_say(fits):
    """They move with the estimates, too."""
    found = torch.stack([fit.covariance.diagonal().sqrt().log() for fit in fits])
    errors = torch.stack([fit.standard_error_errors for fit in fits]).pow(2).mean(0).sqrt()
    ratio = found.std(0) / errors
    assert ((ratio > 0.4) & (ratio < 2)).all(), ratio


def test_errors_from_the_exact_maximum_are_as_large_as_they_say():
    """In a linear Gaussian model the draws give nearly exact slopes, and the distance from the
    maximum is what the optimiser leaves; the errors contain it.
    """
    cohort, z_estimates, z_errors = linear_cohort(num=20, missing=0.1), [], []
    for seed in range(3):
        fit = pa.fit_population(linear_program, cohort, seed=seed)

        def objective(vector):
            return exact_log_marginal(cohort, unpack(vector)).sum()

        vector = fit.vector
        for _ in range(3):  # Newton's method
            slope = torch.autograd.functional.jacobian(objective, vector)
            covariance = torch.linalg.inv(-torch.autograd.functional.hessian(objective, vector))
            vector = vector + covariance @ slope
        exact = covariance.diagonal().sqrt()
        z_estimates.append((fit.vector - vector) / fit.monte_carlo_errors)
        change = fit.covariance.diagonal().sqrt() / exact - 1
        z_errors.append(change / fit.standard_error_errors)
    for z in (torch.stack(z_estimates), torch.stack(z_errors)):
        assert 0.4 < float(z.square().mean().sqrt()) < 1.8, z


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
