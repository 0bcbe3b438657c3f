"""Priors a hundred thousand times as wide as the standard errors, and mixtures of trajectories."""

import math

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.numerics.laplace import delta_method
from pyro_amortized.numerics.maximization import maximize, observed_information

TIMES = torch.tensor([0.5, 1.0, 2.0, 4.0, 7.0, 10.0]).double()
SD = 1000.0


def wide(cohort):
    """An intercept of each individual, a slope of all, and priors that say nothing."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), SD).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(SD))
    sigma = pyro.sample("sigma", dist.HalfNormal(SD))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(mean[..., 0], omega))
        y = cohort["y"]
        line = b[..., None] + mean[..., 1, None] * y.times
        pyro.sample("y", dist.Normal(line, sigma[..., None]).to_event(1), obs=y.values)


def wide_cohort(num=24):
    generator = torch.Generator().manual_seed(36)
    b, noise = (torch.randn(num, k, generator=generator).double() for k in (1, len(TIMES)))
    values = 1 + 0.4 * b - 0.1 * TIMES + 0.43 * noise
    return pa.Cohort({"y": pa.Series(TIMES.expand(num, -1), values)})


def constrained(z):
    return torch.cat([z[:2], z[2:].exp()])


def log_marginal(cohort):
    """The closed log likelihood of the means and the logarithms of the standard deviations."""

    def function(z):
        mean, (omega, sigma) = z[:2], z[2:].exp()
        eye = torch.eye(len(TIMES)).double()
        law = dist.MultivariateNormal(mean[0] + mean[1] * TIMES, omega**2 + sigma**2 * eye)
        return law.log_prob(cohort["y"].values.double()).sum()

    return function


def test_standard_errors_under_wide_priors_are_exact():
    """They were missing, and a standard deviation was said not to be determined by the data."""
    cohort = wide_cohort()
    exact = log_marginal(cohort)
    best = maximize(exact, torch.tensor([1.0, -0.1, -1.0, -1.0]), tolerance=1e-7)
    covariance = torch.linalg.inv(observed_information(exact, best.vector))
    values, errors = delta_method(constrained, best.vector, covariance)
    half = torch.tensor(0.5)
    start = {"mean": torch.tensor([1.0, 0.0]), "omega": half, "sigma": half}
    fit = pa.fit_population(wide, cohort, start=start, num_draws=200, seed=0, progress=False)
    assert fit.converged, fit.message
    assert fit.undetermined == ()
    names = ("mean", "omega", "sigma")
    found = torch.cat([fit.estimates[n].reshape(-1) for n in names])
    found_errors = torch.cat([fit.standard_errors[n].reshape(-1) for n in names])
    assert ((found - values).abs() < 0.02 * errors).all()
    assert torch.allclose(found_errors, errors, rtol=0.01)
    assert abs(fit.minus2ll + 2 * best.value) < 3 * fit.marginal.minus2ll_mc_error + 1e-3


def two_trajectories(cohort):
    """Every individual follows one of two slopes; the classes are summed out."""
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    slope = pyro.sample("slope", dist.Normal(torch.tensor([-0.5, 0.5]), 0.5).to_event(1))
    share = pyro.sample("share", dist.Beta(1.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(mean, omega))
        y = cohort["y"]
        line = b[..., None, None] + slope[..., :, None] * y.times[:, None]
        shares = torch.stack([1 - share, share], -1).expand(line.shape[:-1])
        parts = dist.Normal(line, sigma[..., None, None]).to_event(1)
        law = dist.MixtureSameFamily(dist.Categorical(shares), parts)
        pyro.sample("y", law, obs=y.values)


def test_a_mixture_of_trajectories_has_the_likelihood_of_quadrature():
    """Its support has no number of event dimensions, which ended in an error of torch."""
    values = {"mean": 2.0, "omega": 0.7, "share": 0.4, "sigma": 0.5}
    population = {n: torch.tensor(x) for n, x in values.items()}
    population["slope"] = torch.tensor([-0.3, 0.5])
    generator = torch.Generator().manual_seed(4)
    times = torch.arange(6.0).double()
    b, noise = (torch.randn(20, k, generator=generator).double() for k in (1, 6))
    slopes = torch.where(torch.rand(20, 1, generator=generator) < 0.4, 0.5, -0.3)
    data = 2 + 0.7 * b + slopes * times + 0.5 * noise
    cohort = pa.Cohort({"y": pa.Series(times.expand(20, -1), data)})
    grid = torch.linspace(2 - 7, 2 + 7, 1001).double()
    prior = dist.Normal(2.0, 0.7).log_prob(grid) + math.log(14 / 1000)
    classes = [
        dist.Normal(grid[:, None] + s * times, 0.5).log_prob(cohort["y"].values[:, None]).sum(-1)
        for s in (-0.3, 0.5)
    ]
    each = torch.logaddexp(math.log(0.6) + classes[0], math.log(0.4) + classes[1])
    exact = torch.logsumexp(each + prior, 1)
    found = pa.marginal_likelihood(two_trajectories, cohort, population, num_draws=500, seed=1)
    assert ((found.log_likelihood - exact).abs() < 4 * found.mc_error + 1e-4).all()
    assert abs(found.minus2ll + 2 * float(exact.sum())) < 3 * found.minus2ll_mc_error + 1e-3
