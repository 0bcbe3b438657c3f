r"""Training sets simulated with a model."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedWarning
from pyro_amortized.guide.default_distribution import default_training_distribution
from pyro_amortized.training.simulation.failure_checks import check_failures
from pyro_amortized.training.simulation.shard_simulation import Simulator
from tests.exact import linear_program


def test_training_set_is_reproducible_and_depends_on_the_seed(linear):
    structure = pa.read_structure(linear_program, linear)
    distribution = default_training_distribution(structure, linear, 0, num_draws=200)
    sets = [
        Simulator(structure, pa.Resample(linear), distribution, seed)(0, 500) for seed in (1, 1, 2)
    ]
    assert torch.equal(sets[0].cohort["y"].values, sets[1].cohort["y"].values)
    assert not torch.equal(sets[0].cohort["y"].values, sets[2].cohort["y"].values)
    assert len(sets[0]) == 500


def test_failed_simulations_are_counted_and_announced(linear):
    def fragile(cohort):
        sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
        with pyro.plate("individual", len(cohort)):
            slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
            y = cohort["y"]
            prediction = (slope + 1.0).sqrt()[..., None] * y.times  # NaN below -1
            normal = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", normal, obs=y.values)

    structure = pa.read_structure(fragile, linear)
    distribution = default_training_distribution(structure, linear, 0, num_draws=200)
    training_set = Simulator(structure, pa.Resample(linear), distribution, seed=1)(0, 2000)
    with pytest.warns(AmortizedWarning, match="not finite"):
        check_failures(training_set.num_failed, 2000)
    priors = distribution.individual.gaussians(20_000, torch.Generator().manual_seed(3))
    shares = torch.distributions.Normal(priors.loc, priors.scale_tril[..., 0]).cdf(
        torch.tensor(-1.0)
    )
    assert float(shares.mean()) > 0.01
    assert training_set.num_failed / 2000 == pytest.approx(float(shares.mean()), abs=0.01)
    assert len(training_set) == 2000 - training_set.num_failed


def test_simulations_beyond_single_precision_have_failed(linear):
    def explosive(cohort):
        with pyro.plate("individual", len(cohort)):
            rate = pyro.sample("rate", dist.Normal(0.0, 80.0))
            y = cohort["y"]
            distribution = dist.Normal(torch.exp(rate[..., None] + 0 * y.times), 1.0)
            pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)

    options = pa.TrainingOptions(max_epochs=1)
    with pytest.warns(AmortizedWarning, match="not finite"):
        guide = pa.train(explosive, linear, num_simulations=500, options=options, progress=False)
    assert guide.history.num_failed > 0


def test_noise_is_drawn_several_times_from_one_solution(linear):
    calls = []

    def counting(cohort):
        calls.append(len(cohort))
        linear_program(cohort)

    structure = pa.read_structure(counting, linear)
    distribution = default_training_distribution(structure, linear, 0, num_draws=50)
    calls.clear()
    pairs = Simulator(structure, pa.Resample(linear), distribution, 1, num_noise=4)(0, 5000)
    assert calls == [5000]
    assert len(pairs) == 20_000
    y, phi = pairs.cohort["y"].values.reshape(4, 5000, -1), pairs.unconstrained.reshape(4, 5000, 2)
    assert torch.equal(phi[0], phi[3])
    sigma = pairs.shared[:5000].exp()
    difference = (y[0] - y[2]) / sigma / 2**0.5  # independent noise of the right size
    assert difference.std() == pytest.approx(1.0, abs=0.02)
    one = Simulator(structure, pa.Resample(linear), distribution, 1)(0, 5000)
    assert torch.equal(one.cohort["y"].values, y[0])
