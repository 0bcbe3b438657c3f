r"""A guide is asked about populations that it was not trained at, and about other models."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import GuideError, ModelError
from tests.exact import TRUTH, exact_posterior, linear_program


def shares(guide, linear, population, model=linear_program):
    individuals = pa.sample_individuals(
        model, linear, population, guide=guide, refine=False, num_draws=1000, seed=1
    )
    return individuals.estimate.ess / 1000


@pytest.mark.filterwarnings("ignore:The weights of")  # of one individual, after a short training
@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 1.5])
def test_draws_are_effective_under_any_population(linear, linear_guide, scale):
    population = TRUTH | {"omega": scale * TRUTH["omega"]}
    effective = shares(linear_guide, linear, population)
    assert effective.median() > 0.75
    # In a narrow population some of the data lie ten standard deviations out.
    assert effective.quantile(0.1) > (0.15 if scale < 1 else 0.5)


@pytest.mark.filterwarnings("ignore:The weights of")
def test_a_model_with_correlations_needs_no_training(linear, linear_guide):
    def correlated(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.full((2,), 0.5), 1.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
        factor = pyro.sample("factor", dist.LKJCholesky(2, 1.0))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            scale = omega.unsqueeze(-1) * factor
            phi = pyro.sample("phi", dist.MultivariateNormal(mean, scale_tril=scale))
            y = cohort["y"]
            prediction = phi[..., :1] + phi[..., 1:] * y.times
            noise = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", noise, obs=y.values)

    population = TRUTH | {"factor": torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)}
    assert shares(linear_guide, linear, population, correlated).median() > 0.7


def test_density_of_values(linear, linear_guide):
    mean, covariance = exact_posterior(linear, TRUTH)
    exact = torch.distributions.MultivariateNormal(mean, covariance)
    values = exact.sample()
    density = linear_guide.log_prob(linear, {"phi": values}, TRUTH)
    assert density.shape == (len(linear),)
    assert (density - exact.log_prob(values)).abs().median() < 0.3
    posterior = linear_guide.individual_posterior(linear, TRUTH)
    assert torch.allclose(density, posterior.log_prob(values))  # no Jacobian: phi is unconstrained
    with pytest.raises(GuideError, match="missing"):
        linear_guide.log_prob(linear, {}, TRUTH)
    with pytest.raises(ModelError, match="omega"):
        linear_guide.log_prob(linear, {"phi": values}, {"mean": TRUTH["mean"]})


def test_moments_of_a_site_of_one_number(linear):
    def level_alone(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("individual", len(cohort)):
            level = pyro.sample("level", dist.LogNormal(mean, 0.5))
            y = cohort["y"]
            noise = dist.Normal(level[..., None] + 0 * y.times, 0.3).mask(y.observed).to_event(1)
            pyro.sample("y", noise, obs=y.values)

    data = linear[torch.arange(4)]
    individuals = pa.sample_individuals(level_alone, data, {"mean": torch.tensor(0.0)}, seed=1)
    mean, sd = individuals.site_moments()["level"]
    low, high = individuals.quantiles([0.05, 0.95])["level"]
    draws = individuals.draws(4000)["level"]
    assert torch.allclose(mean, draws.mean(0), atol=0.05)
    assert torch.allclose(sd, draws.std(0), rtol=0.1)
    assert bool(((low < mean) & (mean < high)).all())


def test_moments_and_quantiles_of_sites(linear, linear_guide):
    individuals = pa.sample_individuals(
        linear_program, linear, TRUTH, guide=linear_guide, num_draws=4000, seed=1
    )
    mean, covariance = exact_posterior(linear, TRUTH)
    sd = covariance.diagonal(dim1=1, dim2=2).sqrt()
    site_mean, site_sd = individuals.site_moments()["phi"]
    assert ((site_mean - mean).abs() < 0.15 * sd).all()
    assert torch.allclose(site_sd, sd, rtol=0.15)
    low, high = individuals.quantiles([0.05, 0.95])["phi"]
    assert ((low - (mean - 1.645 * sd)).abs() < 0.3 * sd).all()
    assert ((high - (mean + 1.645 * sd)).abs() < 0.3 * sd).all()
