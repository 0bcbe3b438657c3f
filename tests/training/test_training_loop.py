"""Runs that are watched, or given a time."""

import time

import pytest

import pyro_amortized as pa
from pyro_amortized.errors import TrainingError
from pyro_amortized.missing import RandomMissing
from pyro_amortized.training.learning_rate import Schedule
from tests.exact import TRUTH, exact_posterior, linear_program
from tests.small import train


def test_a_time_budget_is_kept(linear):
    begin = time.monotonic()
    guide = train(linear, num_simulations=None, budget="6s")
    assert 4 < time.monotonic() - begin < 60  # a busy machine ends the last step and shard late
    history = guide.history
    assert history.stopped == "time budget used"
    assert history.learning_rate[-1] < 1e-4
    assert history.num_pairs > 1000
    mean, covariance = exact_posterior(
        linear,
        {
            "mean": guide.training_distribution.individual.normal.loc,
            "omega": guide.training_distribution.individual.normal.scale_tril.diagonal(),
            "sigma": TRUTH["sigma"],
        },
    )
    draws = guide.individual_posterior(linear, TRUTH).sample((500,))
    sd = covariance.diagonal(dim1=1, dim2=2).sqrt()
    untrained = ((guide.training_distribution.individual.normal.loc - mean).abs() / sd).mean()
    assert ((draws.mean(0) - mean).abs() / sd).mean() < 0.5 * untrained  # whatever the machine did


@pytest.mark.parametrize("budget", ["5 parsecs", -3, "0s", ""])
def test_budgets_that_are_none(linear, budget):
    with pytest.raises(TrainingError, match="budget"):
        train(linear, budget=budget)


class Listener:
    def __init__(self):
        self.params, self.metrics = {}, []

    def log_params(self, params):
        self.params = dict(params)

    def log_metric(self, key, value, step):
        self.metrics.append((key, value, step))


def test_a_tracker_hears_the_losses(linear):
    listener = Listener()
    guide = train(linear, tracker=listener)
    heard = [value for key, value, _ in listener.metrics if key == "validation_loss"]
    assert heard == guide.history.validation_loss
    assert listener.params["batch_size"] == 128
    assert {key for key, _, _ in listener.metrics} >= {"training_loss", "learning_rate"}


def test_advice_tells_what_is_lacking(linear):
    options = pa.TrainingOptions(max_epochs=200, batch_size=64, patience=1000, learning_rate=0.02)
    few = pa.Resample(linear, RandomMissing(0.0, 0.0))  # nothing fresh on a new pass
    guide = pa.train(
        linear_program, few, num_simulations=400, seed=1, options=options, progress=False
    )
    assert "simulations limit" in guide.history.advice
    short = train(linear, options=pa.TrainingOptions(max_epochs=6, batch_size=64))
    assert "time limits" in short.history.advice


def test_schedule_reaches_zero_and_cools_down():
    plan = Schedule(1.0, 10, 1000)
    assert plan.rate(0, plan.progress(0, 0.0)) == pytest.approx(0.1)
    assert plan.rate(1000, plan.progress(1000, 0.0)) == pytest.approx(0.0, abs=1e-12)
    cooled = Schedule(1.0, 10, 1000, cooling_from=200)
    assert cooled.progress(200, 0.0) == pytest.approx(0.8)
    assert cooled.progress(250, 0.0) == 1.0
    timed = Schedule(1.0, 0, None)
    assert timed.progress(10**9, 0.25) == 0.25
