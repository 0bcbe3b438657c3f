"""The point of an individual lies in a mode, and is the posterior mean where there is one mode."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import residuals
from pyro_amortized.sampling.posterior_centers import posterior_centers

POPULATION = {
    "omega": torch.tensor(1.0, dtype=torch.float64),
    "sigma": torch.tensor(0.2, dtype=torch.float64),
}
SIZES = torch.tensor([0.8, 1.2, 1.6]).double()


def squared(cohort):
    """The data do not say whether u is positive or negative."""
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        u = pyro.sample("u", dist.Normal(torch.zeros(()), omega))
        y = cohort["y"]
        square = (u**2)[..., None].expand(*u.shape, y.values.shape[-1])
        pyro.sample("y", dist.Normal(square, sigma[..., None]).to_event(1), obs=y.values)


@pytest.fixture(scope="module")
def two_modes():
    values = SIZES.square().unsqueeze(1) + torch.tensor([-0.1, 0.0, 0.1]).double()
    times = torch.arange(3.0).double().expand(3, -1)
    cohort = pa.Cohort({"y": pa.Series(times, values)})
    return pa.sample_individuals(squared, cohort, POPULATION, num_draws=2000, seed=1)


def exact_centers():
    """Posterior mean of the positive mode, by a sum over a grid."""
    u = torch.linspace(1e-4, 4, 20_001).double()
    values = SIZES.square().unsqueeze(1) + torch.tensor([-0.1, 0.0, 0.1]).double()
    errors = (values.unsqueeze(-1) - u.square()) / POPULATION["sigma"]
    density = torch.softmax(-0.5 * errors.square().sum(1) - 0.5 * u.square(), -1)
    return density @ u


def test_it_is_the_mean_of_one_of_two_modes(two_modes):
    assert (two_modes.moments()[0].abs() < 0.15).all()  # between the modes
    centers = posterior_centers(two_modes)[:, 0]
    sd = POPULATION["sigma"] / 3**0.5 / (2 * SIZES)
    error = sd / (two_modes.estimate.ess / 2).sqrt()
    assert ((centers.abs() - exact_centers()).abs() < 5 * error).all()


def test_individual_predictions_are_those_of_a_mode(two_modes):
    found = residuals(two_modes, num_simulations=50, seed=1)
    assert ((found.individual - found.observed).abs() < 3 * POPULATION["sigma"]).all()
    assert (found.iwres.abs() < 3).all()


def test_it_is_the_posterior_mean_of_one_mode(fit):
    individuals = fit.individuals
    assert torch.equal(posterior_centers(individuals), individuals.moments()[0])
