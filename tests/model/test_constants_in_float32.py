"""Programs whose constants were made outside of them, in float32."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import ModelError

CENTER = torch.tensor([0.5, 0.5])
IDENTITY = torch.eye(2)


def observe(cohort, phi, sigma):
    y = cohort["y"]
    prediction = phi[..., :1] + phi[..., 1:] * y.times
    noise = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
    pyro.sample("y", noise, obs=y.values)


def test_draws_of_their_distributions_are_in_float64(linear):
    def model(cohort):
        mean = pyro.sample("mean", dist.MultivariateNormal(CENTER, IDENTITY))
        omega = pyro.sample("omega", dist.LogNormal(CENTER, 1.0).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            scale = omega.unsqueeze(-1) * torch.eye(2)
            phi = pyro.sample("phi", dist.MultivariateNormal(mean, scale_tril=scale))
            observe(cohort, phi, sigma)

    structure = pa.read_structure(model, linear)
    population = structure.initial_population()
    assert {x.dtype for x in population.values()} == {torch.float64}
    assert pa.marginal_likelihood(model, linear, population, num_draws=100).total < 0


def test_a_product_with_one_says_how_to_mend_it(linear):
    def model(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, 0.5).to_event(1))
            observe(cohort, phi @ IDENTITY, torch.tensor(0.3))

    with pytest.raises(ModelError, match="constants inside the model, or in float64"):
        pa.read_structure(model, linear)
