"""Runs that are watched, or given a time."""

import pytest

from pyro_amortized.training import guide_training, simulation_plan, training_loop
from tests.exact import TRUTH, exact_posterior
from tests.small import train


class Clock:
    """Time as a number of steps, and of simulations: it passes with nothing else.

    A step takes 1/64 of a second, and the measured simulations a tenth.
    """

    def __init__(self):
        self.num_steps = self.num_looks = 0

    def monotonic(self):
        return self.num_steps / 64

    def perf_counter(self):
        self.num_looks += 1
        return self.num_looks / 10

    def count(self, take_step):
        def counted(*arguments):
            self.num_steps += 1
            return take_step(*arguments)

        return counted


@pytest.fixture
def clock(monkeypatch):
    """The clock of a training that counts steps."""
    clock = Clock()
    for module in (guide_training, simulation_plan, training_loop):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(training_loop, "take_step", clock.count(training_loop.take_step))
    return clock


@pytest.mark.slow
def test_a_time_budget_is_kept(linear, clock):
    guide = train(linear, num_simulations=None, budget="6s")
    history = guide.history
    assert history.num_steps == clock.num_steps == 6 * 64
    assert 120 * history.num_steps < history.num_pairs <= 128 * history.num_steps
    assert history.training_seconds == 6.0
    assert history.stopped == "time budget used"
    assert history.learning_rate[-1] < 1e-4
    mean, covariance = exact_posterior(linear, TRUTH)
    draws = guide.individual_posterior(linear, TRUTH).sample((500,))
    sd = covariance.diagonal(dim1=1, dim2=2).sqrt()
    untrained = ((TRUTH["mean"] - mean).abs() / sd).mean()
    assert ((draws.mean(0) - mean).abs() / sd).mean() < 0.5 * untrained
