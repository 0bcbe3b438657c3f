"""Score tests of fixed parameters against the closed likelihood of a linear model."""

import math

import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from pyro_amortized.numerics.maximization import maximize, observed_information, value_and_gradient

NUM, TIMES = 30, 4
NULL = {"beta": torch.tensor(0.0), "gamma": torch.zeros(2)}


def model(cohort):
    """Covariates that vary over time act on the observations; their means vary, too."""
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
    gamma = pyro.sample("gamma", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("individual", len(cohort)):
        b = pyro.sample("b", dist.Normal(mu, omega))
        y = cohort["y"]
        x, z = (cohort.time_varying[n].at(y.times) for n in ("x", "z"))
        f = b[..., None] + beta[..., None] * x
        f = f + gamma[..., 0, None] * z + gamma[..., 1, None] * z**2
        error = dist.Normal(f, sigma[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


@pytest.fixture(scope="module")
def cohort():
    generator = torch.Generator().manual_seed(1)
    times = torch.arange(float(TIMES)).double().expand(NUM, -1).clone()

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, z = (normal(NUM, TIMES) + normal(NUM, 1) for _ in range(2))
    y = 1 + 0.5 * normal(NUM, 1) + 0.08 * x + 0.3 * normal(NUM, TIMES)
    varying = {"x": pa.Series(times, x), "z": pa.Series(times, z)}
    return pa.Cohort({"y": pa.Series(times, y)}, time_varying=varying)


@pytest.fixture(scope="module")
def fit(cohort):
    return pa.fit_population(model, cohort, fixed=NULL, seed=1)


def exact_test(cohort, kept):
    """The score test in closed form; ``kept`` are the places of the tested coefficients."""
    y = cohort["y"].values
    x, z = (cohort.time_varying[n].at(cohort["y"].times) for n in ("x", "z"))

    def function(v):
        omega, sigma = v[1].exp(), v[2].exp()
        covariance = omega**2 + sigma**2 * torch.eye(TIMES).double()
        mean = v[0] + v[3] * x + v[4] * z + v[5] * z**2
        return torch.distributions.MultivariateNormal(mean, covariance).log_prob(y).sum()

    def null(v):
        return function(torch.cat([v, torch.zeros(3).double()]))

    best = maximize(null, torch.tensor([1.0, -0.7, -1.2]).double()).vector
    at = torch.cat([best, torch.zeros(3).double()])
    score, info = value_and_gradient(function, at)[1], observed_information(function, at)
    rest = [0, 1, 2]
    answer = torch.linalg.solve(info[rest][:, rest], info[rest][:, kept])
    remaining = info[kept][:, kept] - info[kept][:, rest] @ answer
    step = torch.linalg.solve(remaining, score[kept])
    errors = torch.linalg.inv(remaining).diagonal().sqrt()

    def larger(v):
        mine = torch.zeros(3).double().index_put((torch.tensor(kept) - 3,), v[3:])
        return function(torch.cat([v[:3], mine]))

    free = maximize(larger, torch.cat([best, torch.zeros(len(kept)).double()]))
    ratio = 2 * (free.value - float(null(best)))
    return float(score[kept] @ step), errors, ratio, free.vector[3:]


@pytest.mark.parametrize(("name", "kept"), [("beta", [3]), ("gamma", [4, 5])])
def test_statistics_estimates_and_errors_are_those_of_the_closed_form(cohort, fit, name, kept):
    test = pa.score_tests(fit, name)[name]
    statistic, errors, ratio, estimate = exact_test(cohort, kept)
    assert abs(test.statistic - statistic) < 4 * test.mc_error + 0.01 * max(1.0, statistic)
    assert test.ratio == pytest.approx(ratio, rel=0.01, abs=0.02)
    assert torch.allclose(test.estimate.reshape(-1), estimate, atol=0.03 * float(errors.max()))
    assert torch.allclose(test.standard_error, errors, rtol=0.01)
    assert test.degrees_of_freedom == len(kept)
    assert test.p_value == pytest.approx(scipy.special.chdtrc(len(kept), test.ratio))


def test_the_fit_with_the_effect_has_what_was_promised(cohort, fit):
    promised = pa.score_tests(fit)["beta"]
    larger = pa.fit_population(model, cohort, fixed={"gamma": NULL["gamma"]}, seed=1)
    ratio = pa.likelihood_ratio_test(fit, larger)
    assert abs(ratio.statistic - promised.ratio) < 4 * ratio.mc_error + 0.02
    error = float(larger.standard_errors["beta"])
    assert abs(float(larger.estimates["beta"] - promised.estimate)) < 0.05 * error


def test_all_fixed_sites_are_tested_by_default(fit):
    tests = pa.score_tests(fit)
    assert [x.name for x in tests.tests] == ["beta", "gamma"]
    assert "fall of -2LL" in repr(tests)
    with pytest.raises(FitError, match="no test of 'x'"):
        tests["x"]


def test_what_has_no_score_is_said(fit):
    with pytest.raises(FitError, match="'mu' was not fixed"):
        pa.score_tests(fit, ["mu"])


def test_what_the_data_do_not_determine_has_no_statistic():
    def with_idle(cohort):
        idle = pyro.sample("idle", dist.Normal(0.0, 1.0))
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("individual", len(cohort)):
            b = pyro.sample("b", dist.Normal(mu + 0.0 * idle, 0.5))
            y = cohort["y"]
            error = dist.Normal(b[..., None].expand(y.values.shape), 0.3)
            pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)

    times = torch.zeros(5, 1).double()
    data = pa.Cohort({"y": pa.Series(times, torch.linspace(0, 1, 5).double().unsqueeze(1))})
    fit = pa.fit_population(with_idle, data, fixed={"idle": torch.tensor(0.0)}, seed=1)
    assert math.isnan(pa.score_tests(fit)["idle"].statistic)


def test_a_strong_effect_is_significant_where_the_likelihood_is_not_concave():
    """An exponent that the fit holds at zero explains nearly all of the variation."""

    def spread(cohort):
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
        with pyro.plate("individual", len(cohort)):
            b = pyro.sample("b", dist.Normal(mu, omega))
            y = cohort["y"]
            power = beta[..., None] * cohort.time_varying["x"].at(y.times)
            f = b[..., None] * power.exp()
            pyro.sample("y", dist.Normal(f, 0.3).mask(y.observed).to_event(1), obs=y.values)

    generator = torch.Generator().manual_seed(2)
    times = torch.arange(5.0).double().expand(20, -1).clone()
    x = torch.randn(20, 5, generator=generator).double()
    b = 2 + 0.5 * torch.randn(20, 1, generator=generator).double()
    noise = 0.3 * torch.randn(20, 5, generator=generator).double()
    data = pa.Cohort(
        {"y": pa.Series(times, b * (1.2 * x).exp() + noise)},
        time_varying={"x": pa.Series(times, x)},
    )
    none = pa.fit_population(spread, data, fixed={"beta": torch.tensor(0.0)}, seed=1)
    tests = pa.score_tests(none)
    assert tests["beta"].p_value < 1e-3
    assert tests["beta"].statistic > 10
    assert tests["beta"].by_scores, repr(tests)
    assert math.isnan(tests["beta"].ratio)
    assert "beta: too strong for the draws of this fit" in repr(tests)
    assert float(tests["beta"].estimate) > 0
