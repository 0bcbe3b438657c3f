"""Stochastic dynamics: known moments, and models whose paths are dropped."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.cohort import Cohort, Series
from pyro_amortized.errors import ModelError
from pyro_amortized.model import read_structure
from tests.nlme.kit import f64

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


def ornstein(cohort):
    rate = pyro.sample("rate", dist.LogNormal(0.0, 0.3))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        level = pyro.sample("level", dist.Normal(2.0, 0.5))
        y = cohort["y"]
        path = nlme.euler_maruyama(
            lambda t, x, p: p["rate"].unsqueeze(-1) * (p["level"].unsqueeze(-1) - x),
            lambda t, x, p: 0.5 * torch.ones_like(x),
            torch.zeros(1),
            y.times,
            {"rate": rate.expand(level.shape), "level": level},
            num_steps=100,
        )
        normal = dist.Normal(path[..., 0], sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", normal, obs=y.values)


def schedule(num, *times):
    grid = torch.tensor(times, dtype=torch.float64).expand(num, -1)
    return Cohort({"y": Series(grid, torch.ones_like(grid))})


def test_moments_of_a_stochastic_differential_equation():
    """Ornstein-Uhlenbeck: mean and variance of the path are known."""
    num = 20_000
    times = f64(0.5, 1.0, 2.0).expand(num, -1)
    with pyro.plate("individual", num):
        x = nlme.euler_maruyama(
            lambda t, x, p: p["k"].unsqueeze(-1) * (2 - x),
            lambda t, x, p: torch.full_like(x, 0.5),
            f64(0.0),
            times,
            {"k": torch.full((num,), 1.3).double()},
            num_steps=400,
        )[..., 0]
    mean = 2 * (1 - torch.exp(-1.3 * times[0]))
    variance = 0.25 / 2.6 * (1 - torch.exp(-2.6 * times[0]))
    assert torch.allclose(x.mean(0), mean, atol=0.012)
    assert torch.allclose(x.var(0), variance, rtol=0.05)


def test_moments_of_a_birth_and_death_process():
    num = 5_000
    times = f64(1.0, 4.0).expand(num, -1)
    with pyro.plate("individual", num):
        x = nlme.tau_leaping(
            lambda t, x, p: torch.stack([p["birth"], p["death"] * x[:, 0]], -1),
            torch.tensor([[1.0], [-1.0]]),
            f64(0.0),
            times,
            {"birth": torch.full((num,), 20.0).double(), "death": torch.ones(num).double()},
            num_steps=200,
        )[..., 0]
    mean = 20 * (1 - torch.exp(-times[0]))  # of a Poisson distribution, and its variance
    assert torch.allclose(x.mean(0), mean, rtol=0.02)
    assert torch.allclose(x.var(0), mean, rtol=0.1)
    with pytest.raises(ModelError, match="stoichiometry"):
        nlme.tau_leaping(lambda t, x, p: x, torch.ones(1, 2), f64(0.0), times, {})


def test_paths_are_simulated_and_dropped():
    cohort = schedule(6, 0.5, 1.0, 2.0)
    structure = read_structure(ornstein, cohort)
    assert structure.layout is not None
    assert structure.shared == ("rate", "sigma")
    assert list(structure.individual) == ["level"]
    assert list(structure.population) == ["rate", "sigma"]
    assert not structure.has_density
    with pytest.raises(ModelError, match="no density"):
        structure.log_density(cohort, torch.zeros(1, 6, 1), structure.initial_population())
    options = pa.TrainingOptions(max_epochs=2)
    guide = pa.train(ornstein, cohort, num_simulations=500, seed=1, options=options, progress=False)
    assert guide is not None


def test_stochastic_simulations_use_fresh_paths():
    cohort = schedule(4, 0.5, 1.0, 2.0)
    structure = read_structure(ornstein, cohort)
    u, shared = torch.zeros(4, 1), torch.zeros(4, 2)
    simulated = [
        structure.simulate(
            cohort, u, shared, structure.initial_population(), torch.Generator().manual_seed(s)
        )[0]["y"].values
        for s in (1, 1, 2)
    ]
    assert torch.equal(simulated[0], simulated[1])
    assert not torch.equal(simulated[0], simulated[2])
    assert len({float(x) for x in simulated[0][:, 0]}) == 4
