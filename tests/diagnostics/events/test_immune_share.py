"""A share of individuals without the event, beside the exact likelihood of exponential hazards."""

import numpy as np

from pyro_amortized.diagnostics.events.immune_share import immune_share

NUM = 100


def hazards(generator, share, end=4.0):
    """Cumulative hazards of the right scale and shape, and of the end of the observation."""
    time = generator.exponential(size=NUM)
    time[generator.random(NUM) < share] = np.inf
    return np.minimum(time, end), np.where(time < end, time, np.inf)


def test_a_share_is_found_and_its_size_is_estimated():
    lower, upper = hazards(np.random.default_rng(1), 0.3)
    share, p_value = immune_share(lower, upper)
    assert p_value < 1e-4
    error = (0.3 * 0.7 / NUM) ** 0.5
    assert abs(share - np.isinf(upper).mean()) < 4 * error


def test_interval_times_give_the_same_answer():
    lower, upper = hazards(np.random.default_rng(1), 0.3)
    exact = immune_share(lower, upper)
    wide = np.isfinite(upper)
    known = immune_share(np.where(wide, lower * 0.98, lower), np.where(wide, upper * 1.02, upper))
    assert abs(known[0] - exact[0]) < 0.02


def test_right_hazards_pass_at_the_level():
    """At most three of 40 below 1 % (the chance of four is .0007), with a short follow-up."""
    generator = np.random.default_rng(3)
    found = [immune_share(*hazards(generator, 0.0, end=1.5)) for _ in range(40)]
    assert sum(x is not None and x[1] < 0.01 for x in found) <= 3


def test_few_individuals_without_the_event_are_no_share():
    lower, upper = hazards(np.random.default_rng(4), 0.0, end=20.0)
    upper[:2], lower[:2] = np.inf, 25.0
    assert immune_share(lower, upper) is None
    assert immune_share(lower[:8], upper[:8]) is None
