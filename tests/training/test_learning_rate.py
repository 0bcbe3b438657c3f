r"""The learning rate as a function of progress."""

import pytest

from pyro_amortized.training.learning_rate import RateSchedule


def test_schedule_reaches_zero_and_cools_down():
    plan = RateSchedule(1.0, 10, 1000)
    assert plan.rate(0, plan.progress(0, 0.0)) == pytest.approx(0.1)
    assert plan.rate(1000, plan.progress(1000, 0.0)) == pytest.approx(0.0, abs=1e-12)
    cooled = RateSchedule(1.0, 10, 1000, cooling_from=200)
    assert cooled.progress(200, 0.0) == pytest.approx(0.8)
    assert cooled.progress(250, 0.0) == 1.0
    timed = RateSchedule(1.0, 0, None)
    assert timed.progress(10**9, 0.25) == 0.25
