"""Estimates, standard errors and criteria of a fit against the exact linear Gaussian model."""

import math

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from tests.exact import exact_log_marginal, exact_posterior, unpack


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


def test_shrinkage_against_the_closed_form(fit, linear):
    means, _ = exact_posterior(linear, fit.estimates)
    eta = (means - fit.estimates["mean"]) / fit.estimates["omega"]
    expected = 1 - eta.std(0)
    shrinkages = list(fit.shrinkage(num_draws=4000).values())
    assert torch.allclose(torch.tensor(shrinkages).double(), expected, atol=0.03)


def test_sandwich_against_exact_scores(fit, linear, exact):
    vector, _, covariance = exact
    scores = torch.autograd.functional.jacobian(
        lambda z: exact_log_marginal(linear, unpack(z)), vector
    )
    scores = scores - scores.mean(0)
    expected = (covariance @ scores.T @ scores @ covariance).diagonal().sqrt()
    robust = fit.robust_covariance.diagonal().sqrt()
    assert ((robust / expected - 1).abs() < 0.1).all()
    assert set(fit.robust_standard_errors) == {"mean", "omega", "sigma"}


def test_a_fit_with_limits_is_saved(tmp_path):
    """The series and its limits share their times."""
    frame = pd.DataFrame(
        {
            "ID": [1, 1, 1, 2, 2, 2, 3, 3, 3],
            "TIME": [0.0, 1.0, 2.0] * 3,
            "DV": [2.1, 1.4, 0.5, 2.3, 1.2, 0.5, 1.8, 1.1, 0.7],
            "CENS": [0, 0, 1, 0, 0, 1, 0, 0, 0],
        }
    )
    cohort = nlme.read_table(frame, series="y")

    def model(c):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        omega = pyro.sample("omega", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(c)):
            phi = pyro.sample("phi", dist.Normal(mean, omega))
            y = c["y"]
            value = dist.Normal(phi[..., None] - 0.7 * y.times + 2.0, 0.3)
            limit = c.time_varying["y_low"].at(y.times)
            censored = nlme.Censored(value, low=limit).mask(y.observed).to_event(1)
            pyro.sample("y", censored, obs=y.values)

    fit = pa.fit_population(model, cohort, num_draws=50, seed=1)
    fit.save(tmp_path / "fit")
    loaded = pa.load_fit(tmp_path / "fit", model)
    assert torch.equal(loaded.vector, fit.vector)
    assert torch.equal(loaded.cohort["y"].times, fit.cohort["y"].times)
