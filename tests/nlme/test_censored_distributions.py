"""Censored, truncated and rounded distributions: against SciPy and by simulation."""

import math

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_amortized import nlme
from pyro_amortized.cohort import Cohort, Series
from pyro_amortized.model import read_structure
from pyro_amortized.nlme.censored_distributions import log_cdf, log_survival
from tests.nlme.kit import f64

BASES = {
    "normal": (dist.Normal(f64(1.0), f64(2.0)), scipy.stats.norm(1, 2)),
    "lognormal": (
        dist.LogNormal(f64(0.5), f64(0.8)),
        scipy.stats.lognorm(0.8, scale=math.exp(0.5)),
    ),
    "student": (dist.StudentT(f64(3.0), f64(1.0), f64(2.0)), scipy.stats.t(3, 1, 2)),
    "laplace": (dist.Laplace(f64(1.0), f64(2.0)), scipy.stats.laplace(1, 2)),
}


@pytest.mark.parametrize("name", list(BASES))
def test_tails_of_the_distributions(name):
    distribution, exact = BASES[name]
    for x in (0.1, 1.0, 2.5, 30.0):
        assert float(log_cdf(distribution, f64(x))) == pytest.approx(
            exact.logcdf(x), rel=1e-8, abs=1e-12
        )
        assert float(log_survival(distribution, f64(x))) == pytest.approx(
            exact.logsf(x), rel=1e-7, abs=1e-12
        )


@pytest.mark.parametrize("df", [1.5, 4.0, 30.0, 200.0])
def test_the_distribution_function_of_student(df):
    x = f64(-1000.0 if df < 100 else -20.0, -5.0, -0.1, 0.0, 2.0, 40.0)
    distribution = dist.StudentT(torch.full_like(x, df), f64(0.0), f64(1.0))
    exact = scipy.stats.t.logcdf(x.numpy(), df)
    assert log_cdf(distribution, x).tolist() == pytest.approx(exact.tolist(), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("name", list(BASES))
def test_censored_distributions_have_mass_one_and_draws_have_their_probabilities(name):
    base, _ = BASES[name]
    distribution = nlme.Censored(base, low=0.7, high=3.0)
    grid = torch.linspace(0.7, 3.0, 20_001, dtype=torch.float64)[1:-1]
    ends = [float(distribution.log_prob(f64(x)).exp()) for x in (0.7, 3.0)]
    inside = float(torch.trapezoid(distribution.log_prob(grid).exp(), grid))
    assert inside + sum(ends) == pytest.approx(1.0, abs=3e-4)
    draws = distribution.sample((40_000,))
    for bound, probability in zip((0.7, 3.0), ends, strict=True):
        error = math.sqrt(probability * (1 - probability) / len(draws))
        assert float((draws == bound).double().mean()) == pytest.approx(probability, abs=4 * error)


def test_interval_below_the_limit():
    base = dist.Normal(f64(1.0), f64(2.0))
    distribution = nlme.Censored(base, low=0.5, floor=0.0)
    exact = scipy.stats.norm(1, 2)
    assert float(distribution.log_prob(f64(0.5)).exp()) == pytest.approx(
        exact.cdf(0.5) - exact.cdf(0.0)
    )
    partly_bounded = nlme.Censored(base.expand((2,)), low=0.5, floor=f64(-math.inf, 0.0))
    assert partly_bounded.log_prob(f64(0.5, 0.5)).exp().tolist() == pytest.approx(
        [exact.cdf(0.5), exact.cdf(0.5) - exact.cdf(0.0)]
    )


@pytest.mark.parametrize("name", ["normal", "lognormal", "student"])
def test_truncated_distributions(name):
    base, exact = BASES[name]
    distribution = nlme.Truncated(base, low=0.8)
    assert float(distribution.log_prob(f64(2.0))) == pytest.approx(
        exact.logpdf(2.0) - exact.logsf(0.8), rel=1e-6
    )
    assert float(distribution.log_prob(f64(0.5))) == -math.inf
    draws = distribution.sample((20_000,))
    assert float(draws.min()) >= 0.8
    probability = (exact.cdf(2.0) - exact.cdf(0.8)) / exact.sf(0.8)
    assert float((draws < 2.0).double().mean()) == pytest.approx(probability, abs=0.015)
    below = nlme.Censored(distribution, low=1.5)  # Beal's M4
    probability = (exact.cdf(1.5) - exact.cdf(0.8)) / exact.sf(0.8)
    assert float(below.log_prob(f64(1.5)).exp()) == pytest.approx(probability, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 3), st.floats(0.05, 3), st.floats(0.05, 2))
def test_rounded_distributions_sum_to_one(loc, scale, width):
    distribution = nlme.Rounded(dist.Normal(f64(loc), f64(scale)), width)
    reach = math.ceil((abs(loc) + 12 * scale) / width) + 1
    values = width * torch.arange(-reach, reach + 1, dtype=torch.float64)
    assert float(distribution.log_prob(values).exp().sum()) == pytest.approx(1.0, abs=1e-9)


def test_gradients_of_censored_distributions_are_finite_far_from_the_limits():
    loc = f64(-200.0, 0.0, 300.0).requires_grad_()
    distribution = nlme.Censored(dist.Normal(loc, f64(1.0)), low=-1.0, high=1.0)
    for value in (-1.0, 0.0, 1.0):
        (gradient,) = torch.autograd.grad(
            distribution.log_prob(torch.full_like(loc, value)).sum(), loc
        )
        assert gradient.isfinite().all()


def test_a_model_with_censored_values_keeps_its_masks():
    values = f64(2.0, 1.0, math.nan).reshape(1, 3)
    cohort = Cohort({"y": Series(f64(0.0, 1.0, 2.0).reshape(1, 3), values)})

    def model(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, 1.0))
            y = cohort["y"]
            f = phi.unsqueeze(-1).expand(y.times.shape)
            distribution = nlme.Censored(nlme.additive_error(f, sigma[..., None]), low=1.0)
            pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)

    structure = read_structure(model, cohort)
    population = {"mean": f64(0.5)[0], "sigma": f64(0.7)[0]}
    log_density = structure.log_density(cohort, f64(0.3).reshape(1, 1, 1), population).observation
    exact = scipy.stats.norm(0.3, 0.7)
    assert float(log_density) == pytest.approx(exact.logpdf(2.0) + exact.logcdf(1.0))
    assert structure.shared == ("sigma",)


def test_limits_and_values_of_different_precision_meet():
    """A value of 0.2 that was once in single precision lies 3e-9 above 0.2."""
    value = torch.tensor([0.2], dtype=torch.float32).double()
    normal = dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    low = nlme.Censored(normal, low=0.2)
    assert value.item() > 0.2
    assert low.log_prob(value).exp().item() == pytest.approx(scipy.stats.norm.cdf(0.2), rel=1e-6)
    high = nlme.Censored(normal, high=value)
    at_high = high.log_prob(torch.tensor([0.2], dtype=torch.float64)).exp().item()
    assert at_high == pytest.approx(scipy.stats.norm.sf(0.2), rel=1e-6)
    inside = low.log_prob(torch.tensor([0.2001], dtype=torch.float64))
    assert inside.exp().item() == pytest.approx(scipy.stats.norm.pdf(0.2001), rel=1e-6)
