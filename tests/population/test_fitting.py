import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from pyro_amortized.population import starting_values
from tests.exact import TRUTH, exact_posterior, linear_program


def test_estimates_standard_errors_and_likelihood(fit, exact):
    vector, value, covariance = exact
    se = covariance.diagonal().sqrt()
    assert ((fit.vector - vector).abs() < 0.1 * se).all()
    assert ((fit.covariance.diagonal().sqrt() / se - 1).abs() < 0.05).all()
    assert abs(fit.minus2ll + 2 * value) < 3 * fit.marginal.minus2ll_mc_error + 0.02
    assert fit.converged, fit.message


def test_criteria_and_names(fit, linear):
    assert fit.num_parameters == 5
    assert fit.aic == pytest.approx(fit.minus2ll + 10)
    assert fit.bic.individuals == pytest.approx(fit.minus2ll + 5 * math.log(40))
    assert fit.bic.observations == pytest.approx(
        fit.minus2ll + 5 * math.log(linear.num_observations)
    )
    assert set(fit.estimates) == {"mean", "omega", "sigma"}


def test_standard_errors_in_the_support(fit):
    """Delta method: se(omega) = omega se(log omega)."""
    log_se = fit.covariance.diagonal().sqrt()[2:4]
    assert torch.allclose(fit.standard_errors["omega"], fit.estimates["omega"] * log_se)


def test_summary_says_it_all(fit):
    summary = fit.summary()
    text = str(summary)
    for word in (
        "omega[1]",
        "RSE",
        "95 % CI",
        "-2LL",
        "AIC",
        "BIC",
        "shrinkage",
        "Pareto k",
        "ESS",
    ):
        assert word in text
    assert len(summary.parameters) == 5
    assert len(summary.individuals) == 40
    assert all(p.lower < p.estimate < p.upper for p in summary.parameters)
    assert summary.parameters[2].lower > 0  # a standard deviation has no negative bound


def test_shrinkage_against_the_closed_form(fit, linear):
    means, _ = exact_posterior(linear, fit.estimates)
    eta = (means - fit.estimates["mean"]) / fit.estimates["omega"]
    expected = 1 - eta.std(0)
    found = list(fit.shrinkage(num_draws=4000).values())
    assert torch.allclose(torch.tensor(found).double(), expected, atol=0.03)


def test_posterior_mode_adds_the_prior(linear, linear_guide, exact):
    """The prior pulls the mean by the amount that precision weighting says."""
    mode = pa.fit_population(
        linear_program, linear_guide, linear, maximum_a_posteriori=True, num_draws=500, seed=2
    )
    vector, _, covariance = exact
    prior = torch.tensor([0.5, 0.5], dtype=torch.float64)
    precision = torch.linalg.inv(covariance)[:2, :2]
    shift = torch.linalg.solve(precision + torch.eye(2).double(), prior - vector[:2])
    assert torch.allclose(mode.vector[:2] - vector[:2], shift, atol=0.25 * covariance[0, 0] ** 0.5)
    assert mode.criterion == "maximum a posteriori"


def test_start_is_used_and_same_seed_same_fit(linear, linear_guide, fit):
    again = [
        pa.fit_population(
            linear_program, linear_guide, linear, start=TRUTH, num_draws=300, seed=5
        ).vector
        for _ in range(2)
    ]
    assert torch.equal(*again)
    se = fit.covariance.diagonal().sqrt()
    assert ((again[0] - fit.vector).abs() < 0.3 * se).all()


def test_the_prior_scale_is_drawn_once(linear, linear_guide, monkeypatch):
    """The starts measure their steps in the units of the rounds and of the standard errors."""
    used, improve_start = [], starting_values.improve_start

    def watched(search, *arguments):
        used.append(search.scale)
        return improve_start(search, *arguments)

    monkeypatch.setattr(starting_values, "improve_start", watched)
    found = pa.fit_population(
        linear_program, linear_guide, linear, num_draws=300, num_starts=2, seed=5
    )
    assert len(used) == 2
    assert all(torch.equal(scale, found.search.scale) for scale in used)


def test_another_population_model_without_retraining(linear, linear_guide, fit):
    """A common standard deviation for both parameters: fitted by the same guide."""

    def common(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
            intercept, slope = phi.unbind(-1)
            y = cohort["y"]
            prediction = intercept[..., None] + slope[..., None] * y.times
            law = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", law, obs=y.values)

    other = pa.fit_population(common, linear_guide, linear, num_draws=500, seed=2)
    assert other.num_parameters == 4
    assert other.minus2ll > fit.minus2ll - 0.1  # nested in the full model


def test_bad_starts(linear, linear_guide):
    with pytest.raises(FitError, match="num_starts"):
        pa.fit_population(linear_program, linear_guide, linear, num_starts=0)
