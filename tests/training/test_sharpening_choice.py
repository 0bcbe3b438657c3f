"""Whether a training is sharpened where the user does not say so."""

import time
from dataclasses import replace
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import ModelError
from pyro_amortized.guide.default_distribution import default_training_distribution
from pyro_amortized.guide.newton_posterior import SharpenedPosterior
from pyro_amortized.missing.designs import as_design
from pyro_amortized.runtime.random_numbers import make_generator
from pyro_amortized.training.sharpening_choice import CHOICE, is_sharpened, networks_limit
from pyro_amortized.training.simulation.shard_simulation import Simulator
from pyro_amortized.training.simulation_plan import Plan
from tests.exact import TRUTH, exact_posterior, linear_program


def plan_of(program, cohort, limit=None, **changes):
    structure = pa.read_structure(program, cohort)
    fast = pa.read_structure(linear_program, cohort)
    distribution = default_training_distribution(fast, cohort, make_generator(0))
    simulator = Simulator(structure, as_design(cohort), distribution, 0)
    options = (pa.TrainingOptions(), pa.Networks(learn_shared=False))
    return replace(Plan(simulator, *options, None, 0.0, limit, None, False), **changes)


def test_time_and_a_density_are_needed(linear):
    assert is_sharpened(plan_of(linear_program, linear, 60.0))
    assert is_sharpened(plan_of(linear_program, linear))
    assert not is_sharpened(plan_of(linear_program, linear, CHOICE.min_budget / 2))
    assert not is_sharpened(plan_of(linear_program, linear, num_simulations=1000))
    assert not is_sharpened(plan_of(linear_program, linear, 60.0, folder=Path("runs")))
    assert networks_limit(60.0) == pytest.approx(60 * CHOICE.networks_share)
    assert networks_limit(None) is None


def test_a_slow_density_leaves_the_time_to_the_networks(linear):
    def slow(cohort):
        time.sleep(0.2)  # of 1,024 individuals and draws together
        linear_program(cohort)

    assert not is_sharpened(plan_of(slow, linear, 60.0))


@pytest.mark.slow
def test_a_budget_is_shared_with_the_newton_steps(linear):
    begin = time.monotonic()
    guide = pa.train(linear_program, linear, budget="20s", seed=1, progress=False)
    assert time.monotonic() - begin < 40  # on a busy machine, too
    assert isinstance(guide.posterior, SharpenedPosterior)
    assert "sharpened with" in guide.history.advice
    exact = torch.distributions.MultivariateNormal(*exact_posterior(linear, TRUTH))
    torch.manual_seed(0)
    draws = exact.sample((500,))
    own = guide.individual_posterior(linear, TRUTH).log_prob(draws)
    assert float((exact.log_prob(draws) - own).mean()) < 0.03


@pytest.mark.slow
def test_it_can_be_asked_for_and_refused(linear):
    few = {"num_simulations": 500, "seed": 1, "progress": False}
    options = pa.TrainingOptions(max_epochs=1)
    short = {"budget": "8s", "options": options}
    sharp = pa.train(linear_program, linear, sharpen=True, **short, **few)
    assert isinstance(sharp.posterior, SharpenedPosterior)
    plain = pa.train(linear_program, linear, options=options, **few)
    assert not isinstance(plain.posterior, SharpenedPosterior)


def test_what_has_no_density_is_refused_before_the_training(linear):
    def simulated(cohort):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("individual", len(cohort)):
            u = pyro.sample("u", dist.Normal(mean, 1.0))
            y = cohort["y"]

            rate = u.exp().unsqueeze(-1).expand(y.values.shape)
            counts = nlme.Simulated(lambda: torch.poisson(rate), rate.shape)
            pyro.sample("y", counts.mask(y.observed).to_event(1), obs=y.values)

    with pytest.raises(ModelError, match="no density"):
        pa.train(simulated, linear, sharpen=True, progress=False)
