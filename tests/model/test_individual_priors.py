r"""The distribution of an individual given the population, against what the program states."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.model.individual_priors import individual_priors, individual_priors_at
from tests.exact import TRUTH, linear_program


def cohort(num=5):
    times = torch.arange(1.0, 4.0).expand(num, -1)
    return pa.Cohort(
        {"y": pa.Series(times, torch.ones(num, 3))},
        covariates={"weight": torch.linspace(-1.0, 2.0, num)},
    )


def observe(cohort, level):
    y = cohort["y"]
    noise = dist.Normal(level[..., None] + 0 * y.times, 1.0).mask(y.observed).to_event(1)
    pyro.sample("y", noise, obs=y.values)


def correlated(cohort):
    """Two correlated parameters, one of them log-normal, with a covariate."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
    correlation = pyro.sample("correlation", dist.LKJCholesky(2, 1.0))
    with pyro.plate("individual", len(cohort)):
        weight = cohort.covariates["weight"]
        shift = torch.stack([effect * weight, 0 * weight], -1)
        scale = omega.unsqueeze(-1) * correlation
        phi = pyro.sample("phi", dist.MultivariateNormal(mean + shift, scale_tril=scale))
        volume = pyro.sample("volume", dist.LogNormal(phi[..., 0], 0.3))
        observe(cohort, phi[..., 1] + volume)


POPULATION = {
    "mean": torch.tensor([0.4, -2.0]),
    "omega": torch.tensor([0.02, 3.0]),
    "effect": torch.tensor(1.7),
    "correlation": torch.tensor([[1.0, 0.0], [0.8, 0.6]]),
}


def test_a_normal_distribution_is_found_exactly():
    data = cohort()
    structure = pa.read_structure(correlated, data)
    priors = individual_priors(structure, data, POPULATION)
    weight = data.covariates["weight"]
    mean = POPULATION["mean"] + torch.stack([1.7 * weight, 0 * weight], -1)
    expected = torch.cat([mean, mean[:, :1]], -1).double()
    assert torch.allclose(priors.loc, expected, atol=1e-8)
    scale = POPULATION["omega"].unsqueeze(-1) * POPULATION["correlation"]
    covariance = torch.zeros(3, 3)
    covariance[:2, :2] = scale @ scale.T
    covariance[2, :2] = covariance[:2, 2] = covariance[0, :2]
    covariance[2, 2] = covariance[0, 0] + 0.3**2  # log volume is normal around phi[0]
    found = priors.scale_tril @ priors.scale_tril.transpose(1, 2)
    assert torch.allclose(found, covariance.double().expand(5, -1, -1), rtol=1e-6, atol=1e-9)


def test_many_populations_are_those_of_each(linear):
    structure = pa.read_structure(linear_program, linear)
    others = [TRUTH, TRUTH | {"omega": 0.01 * TRUTH["omega"], "mean": TRUTH["mean"] + 40}]
    vectors = torch.stack([structure.unconstrain_population(p) for p in others])
    together = individual_priors_at(structure, linear, vectors)
    assert together.batch_shape == (2, len(linear))
    for j, population in enumerate(others):
        one = individual_priors(structure, linear, population)
        assert torch.allclose(together.loc[j], one.loc)
        assert torch.allclose(one.loc, population["mean"].double().expand(len(linear), -1))
        assert torch.allclose(one.standard_deviations[0], population["omega"].double(), rtol=1e-6)


def test_a_distribution_that_is_not_normal_has_its_moments():
    def skewed(cohort):
        rate = pyro.sample("rate", dist.HalfNormal(1.0))
        with pyro.plate("individual", len(cohort)):
            level = pyro.sample("level", dist.Gumbel(0.0, rate))
            observe(cohort, level)

    data = cohort()
    priors = individual_priors(pa.read_structure(skewed, data), data, {"rate": torch.tensor(2.0)})
    exact = torch.distributions.Gumbel(0.0, 2.0)
    assert torch.allclose(priors.loc, exact.mean.double(), atol=5 * float(exact.stddev) / 20)
    assert torch.allclose(priors.standard_deviations, exact.stddev.double(), rtol=0.25)


def test_the_state_of_random_numbers_stays():
    data = cohort()
    structure = pa.read_structure(correlated, data)
    state = torch.get_rng_state()
    individual_priors(structure, data, POPULATION)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num", [1, 3])
def test_any_number_of_individuals(num):
    data = cohort(num)
    structure = pa.read_structure(correlated, data)
    assert individual_priors(structure, data, POPULATION).batch_shape == (num,)
