from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import FitError
from tests.exact import exact_log_marginal, linear_cohort, linear_program
from tests.population.linear_models import common_program, observe


def dependent_program(cohort):
    """The mean of the intercept depends on the weight."""
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        shift = effect * cohort.covariates["weight"].unsqueeze(-1)
        shift = shift * torch.tensor([1.0, 0.0])
        phi = pyro.sample("phi", dist.Normal(mean + shift, omega).to_event(1))
        observe(cohort, phi, sigma)


@pytest.mark.slow
def test_differences_on_common_draws(fit, linear, linear_guide):
    smaller = pa.fit_population(common_program, linear, guide=linear_guide, num_draws=1000, seed=3)
    difference = pa.difference(smaller, fit)
    exact = [
        exact_log_marginal(linear, dict(f.estimates) | {"omega": f.estimates["omega"].expand(2)})
        for f in (smaller, fit)
    ]
    expected = exact[0] - exact[1]
    # Errors of 1e-5 are those of a few draws in the tails, and known to a third.
    error = (difference.mc_error**2 + 1e-4**2) ** 0.5
    assert ((difference.log_likelihood - expected) / error).abs().max() < 4
    assert (
        abs(difference.minus2ll + 2 * float(expected.sum()))
        < 3 * difference.minus2ll_mc_error + 0.01
    )
    # Normal posteriors: the separate likelihoods have next to no error.
    separate = [f.marginal.minus2ll_mc_error for f in (smaller, fit)]
    assert difference.minus2ll_mc_error <= 1.01 * (separate[0] ** 2 + separate[1] ** 2) ** 0.5
    test = pa.likelihood_ratio_test(smaller, fit)
    assert test.degrees_of_freedom == 1
    assert test.statistic == pytest.approx(difference.minus2ll)
    assert 0 <= test.p_value <= 1
    table = pa.compare({"one": smaller, "two": fit})
    assert table.rows[0].aic == 0
    assert "difference" in str(table)
    with pytest.raises(FitError, match="1 fits"):
        pa.compare({"one": fit})
    with pytest.raises(FitError, match="larger model"):
        pa.likelihood_ratio_test(fit, smaller)


@pytest.mark.filterwarnings("ignore:The missing values")
def test_fits_of_different_data_are_refused(fit, linear_guide):
    other = pa.fit_population(
        linear_program,
        linear_cohort(seed=3),
        guide=linear_guide,
        start=fit.estimates,
        num_draws=200,
    )
    with pytest.raises(FitError, match="different data"):
        pa.difference(fit, other)


def test_each_model_sees_its_own_covariates(linear):
    """The weight in other units is the same model: the likelihoods have the same maximum."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(len(linear), generator=generator).double()
    units = [replace(linear, covariates={"weight": factor * weight}) for factor in (1.0, 10.0)]
    fits = [pa.fit_population(dependent_program, cohort, seed=1) for cohort in units]
    assert float(fits[0].estimates["effect"]) != pytest.approx(0.0, abs=0.01)
    difference = pa.difference(*fits)
    assert abs(difference.minus2ll) < 0.01 + 3 * difference.minus2ll_mc_error
    assert difference.log_likelihood.abs().max() < 0.05
