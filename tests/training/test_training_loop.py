"""Runs that are watched, or given a time."""

import time

import pytest

from tests.exact import TRUTH, exact_posterior
from tests.small import train


@pytest.mark.slow
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
