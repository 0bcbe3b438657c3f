"""The real data against quadrature (``benchmarks/exact/theophylline.json``)."""

import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Importance, Predictive, Trace_ELBO
from quickstart import cohort, model
from theophylline_ode import concentration

import pyro_amortized as pa
from tests.exact import THEOPHYLLINE as EXACT
from tests.exact import theophylline_population as population

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fit(theophylline_guide):
    return pa.fit_population(model, cohort, guide=theophylline_guide, num_draws=2000, seed=1)


@pytest.mark.parametrize("point", ["P1", "P2", "ML"])
def test_likelihood_and_individuals_at_given_points(point, theophylline_guide):
    exact, at = EXACT[point], population(point)
    individuals = pa.sample_individuals(
        theophylline_guide.model, cohort, at, guide=theophylline_guide, num_draws=4000, seed=1
    )
    estimate = individuals.estimate
    error = 2 * float(estimate.mc_error.norm())
    assert error < 0.08
    assert abs(-2 * float(estimate.log_mean.sum()) - exact["minus2LL"]) < 3 * error
    each = torch.tensor(exact["minus2LL_by_subject"], dtype=torch.float64)
    assert ((-2 * estimate.log_mean - each).abs() / (2 * estimate.mc_error)).max() < 4
    mean, sd, mean_error, sd_error = individuals.moments()
    eta = torch.tensor(exact["eta_mean"], dtype=torch.float64)
    assert ((mean - at["typical"] - eta).abs() / mean_error).max() < 4
    exact_sd = torch.tensor(exact["eta_sd"], dtype=torch.float64)
    assert ((sd - exact_sd).abs() / sd_error).max() < 4


def test_fit_is_the_exact_maximum(fit):
    ml = EXACT["ML"]["ml"]
    exact, se = (torch.tensor(ml[n], dtype=torch.float64) for n in ("x", "se_x"))
    assert ((fit.vector - exact).abs() / se).max() < 0.07
    assert (fit.covariance.diagonal().sqrt() / se - 1).abs().max() < 0.05
    assert abs(fit.minus2ll - EXACT["ML"]["minus2LL"]) < 3 * fit.marginal.minus2ll_mc_error
    assert fit.aic == pytest.approx(ml["AIC"], abs=0.3)
    assert fit.bic.observations == pytest.approx(ml["BIC_nobs"], abs=0.3)
    assert fit.bic.individuals == pytest.approx(ml["BIC_nsubj"], abs=0.3)


def test_ode_program_with_the_guide_of_the_closed_form(theophylline_guide):
    """The same population model, its dynamics by torchdiffeq: the same likelihood."""

    def by_ode(cohort):
        dist = pyro.distributions
        typical = pyro.sample(
            "typical", dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 0.2).to_event(1)
        )
        omega = pyro.sample("omega", dist.HalfNormal(torch.full((3,), 0.3)).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
            ka, cl, v = phi.exp().unbind(-1)
            series = cohort["concentration"]
            conc = concentration(series, cohort.doses, ka, cl, v)
            distribution = dist.Normal(conc, sigma[..., None]).mask(series.observed).to_event(1)
            pyro.sample("concentration", distribution, obs=series.values)

    likelihood = pa.marginal_likelihood(
        by_ode, cohort, population("P2"), guide=theophylline_guide, num_draws=200, seed=1
    )
    assert abs(likelihood.minus2ll - EXACT["P2"]["minus2LL"]) < 3 * likelihood.minus2ll_mc_error


def test_the_same_program_swaps_in_everywhere(fit, theophylline_guide):
    start = {n: x.float() for n, x in fit.estimates.items()}
    start["phi"] = fit.individuals.moments()[0].float()
    strategy = pyro.infer.autoguide.initialization.init_to_value(values=start)
    chain = MCMC(NUTS(model, init_strategy=strategy, max_tree_depth=4), 3, 3, disable_progbar=True)
    chain.run(cohort)
    assert chain.get_samples()["phi"].shape == (3, 12, 3)
    placed = theophylline_guide.at(fit.vector, torch.linalg.cholesky(fit.covariance))
    adam = pyro.optim.Adam({"lr": 0.01})
    assert SVI(model, placed, adam, Trace_ELBO()).step(cohort) < 1000
    assert float(Importance(model, placed, 50).run(cohort).get_ESS()) > 1
    predicted = Predictive(model, guide=placed, num_samples=20)(cohort)["concentration"]
    spread = (predicted - cohort["concentration"].values).abs().median()
    assert spread < 1.5  # residual error 0.7
