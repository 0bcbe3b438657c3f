"""Observations that are not Gaussian, params without priors, several series; by quadrature."""

import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

import pyro_amortized as pa

pytestmark = pytest.mark.usefixtures("rough_training_distributions")

OPTIONS = pa.TrainingOptions(max_epochs=4, batch_size=256)


def logistic(cohort):
    """Random intercept, binary observations, maximum likelihood of two params."""
    center = pyro.param("center", torch.tensor(0.0))
    spread = pyro.param("spread", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("individual", len(cohort)):
        a = pyro.sample("a", dist.Normal(center, spread))
        y = cohort["y"]
        distribution = (
            dist.Bernoulli(logits=a[..., None] + 0 * y.times).mask(y.observed).to_event(1)
        )
        pyro.sample("y", distribution, obs=y.values)


def binary_cohort(num=60, width=8, spread=1.5):
    generator = torch.Generator().manual_seed(0)
    a = 0.5 + spread * torch.randn(num, 1, generator=generator)
    y = (torch.rand(num, width, generator=generator) < torch.sigmoid(a)).float()
    times = torch.arange(width).float().expand(num, -1)
    observed = torch.rand(num, width, generator=generator) > 0.2
    return pa.Cohort({"y": pa.Series(times, y, observed)})


def by_quadrature(cohort, center, spread):
    """-2LL with 80 Gauss-Hermite nodes."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    p = 1 / (1 + np.exp(-(center + spread * x)))
    y = cohort["y"]
    ones = (y.values * y.observed).sum(1).numpy()
    zeros = y.observed.sum(1).numpy() - ones
    each = (w * p ** ones[:, None] * (1 - p) ** zeros[:, None]).sum(1) / math.sqrt(2 * math.pi)
    return -2 * float(np.log(each).sum())


@pytest.mark.slow
def test_mixed_logistic_regression_with_params():
    cohort = binary_cohort()
    assert pa.read_structure(logistic, cohort).shared == ()
    fit = pa.fit_population(logistic, cohort, num_draws=1000)
    center, spread = (float(fit.estimates[n]) for n in ("center", "spread"))
    exact = by_quadrature(cohort, center, spread)
    assert abs(fit.minus2ll - exact) < 3 * fit.marginal.minus2ll_mc_error
    for other in ((center + 0.1, spread), (center - 0.1, spread), (center, spread * 1.15)):
        assert by_quadrature(cohort, *other) > exact  # it is the maximum
    step = 1e-3
    curvature = sum(
        by_quadrature(cohort, center + s, spread) * (1 if s else -2) for s in (-step, 0.0, step)
    )
    assert fit.converged, fit.message
    profile_se = math.sqrt(2 / (curvature / step**2))  # spread held fixed: a lower bound
    assert float(fit.standard_errors["center"]) == pytest.approx(profile_se, rel=0.15)


def counts_and_channels(cohort):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.LogNormal(-1.0, 0.5))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        rate = pyro.sample("rate", dist.LogNormal(mean, spread))
        share = pyro.sample("share", dist.Beta(2.0, 2.0))
        count, effect = cohort["count"], cohort["effect"]
        distribution = dist.Poisson(rate[..., None] * (1 + 0 * count.times)).mask(count.observed)
        pyro.sample("count", distribution.to_event(1), obs=count.values)
        level = torch.stack([share[..., None] * effect.times, rate[..., None] - effect.times], -1)
        distribution = dist.Normal(level, sigma[..., None, None]).mask(effect.observed)
        pyro.sample("effect", distribution.to_event(2), obs=effect.values)


@pytest.mark.slow
def test_two_series_counts_and_channels_in_single_precision():
    generator = torch.Generator().manual_seed(1)
    counts = torch.poisson(2 * torch.ones(12, 5), generator=generator)
    effect = torch.randn(12, 4, 2, generator=generator)
    seen = torch.rand(12, 4, 2, generator=generator) > 0.3
    cohort = pa.Cohort(
        {
            "count": pa.Series(torch.arange(5.0).expand(12, -1), counts),
            "effect": pa.Series(torch.arange(4.0).expand(12, -1), effect, seen),
        }
    )
    guide = pa.train(
        counts_and_channels, cohort, num_simulations=2000, options=OPTIONS, progress=False
    )
    population = {
        "mean": torch.tensor(0.7),
        "spread": torch.tensor(0.3),
        "sigma": torch.tensor(1.0),
    }
    likelihood = pa.marginal_likelihood(
        counts_and_channels, cohort, population, guide=guide, num_draws=2000
    )
    exact = _grid(cohort)
    assert ((likelihood.log_likelihood - exact).abs() < 4 * likelihood.mc_error + 1e-3).all()


def _grid(cohort):
    """log p(y_i | Psi) on a grid of (log rate, share) at the population of the test above."""
    u = torch.linspace(0.7 - 2.4, 0.7 + 2.4, 400, dtype=torch.float64)
    s = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    rate, share = torch.meshgrid(u.exp(), s, indexing="ij")
    prior = dist.Normal(0.7, 0.3).log_prob(u)[:, None] + dist.Beta(2.0, 2.0).log_prob(share)
    log_marginals = []
    for one in cohort.to(dtype=torch.float64):
        count, effect = one["count"], one["effect"]
        total = prior + dist.Poisson(rate[..., None]).log_prob(count.values[0]).sum(-1)
        level = torch.stack(
            [share[..., None] * effect.times[0], rate[..., None] - effect.times[0]], -1
        )
        each = dist.Normal(level, 1.0).log_prob(effect.values[0]) * effect.observed[0]
        total = total + each.sum((-1, -2))
        log_marginals.append(total.logsumexp((0, 1)) + torch.log((u[1] - u[0]) / 400))
    return torch.stack(log_marginals)


@pytest.mark.slow
def test_a_variance_of_zero_is_reported():
    """Data without variability between individuals: the maximum lies at spread = 0."""
    cohort = binary_cohort(num=20, spread=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(logistic, cohort, num_draws=300)
    assert "deviation of a cannot be distinguished from zero, and spread is held" in fit.message
    assert fit.standard_errors["spread"].isnan()
    assert 0.0 < float(fit.estimates["spread"]) < 1.0
    # The draws follow the center, so that narrow ones do not determine it.
    assert 0.15 < float(fit.standard_errors["center"]) < 0.3
    assert fit.minus2ll == pytest.approx(
        by_quadrature(cohort, *(float(fit.estimates[n]) for n in ("center", "spread"))),
        abs=3 * fit.marginal.minus2ll_mc_error + 0.1,
    )
