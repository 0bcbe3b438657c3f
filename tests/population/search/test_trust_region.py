"""When the rounds of a fit end, and the limits of a round."""

import pytest

from pyro_amortized.population.search.round_progress import RoundProgress
from pyro_amortized.population.search.trust_region import TrustRegion


@pytest.mark.parametrize(
    ("last_gain", "gain", "is_little"),
    [
        (0.0, 0.04, True),  # less than the smallest gain
        (0.0, 0.5, False),  # nothing is known of the next round
        (60.0, 0.1, True),  # the next round would gain 0.0002
        (0.8, 0.1, False),  # the next round would gain 0.01
        (1e6, 2.0, False),  # too far for a last round
    ],
)
def test_the_rounds_end_where_nothing_is_left_to_gain(last_gain, gain, is_little):
    progress = RoundProgress(None, True, last_gain=last_gain)
    assert progress.gains_little(gain, 0.055) == is_little


def test_limits_become_narrower_and_wider():
    region = TrustRegion(level=2)
    narrower = region.narrower()
    assert (narrower.level, narrower.least) == (3, 3)
    assert region.after(0.9, 1.0).after(0.9, 1.0).level == 1
    assert narrower.after(0.9, 1.0).after(0.9, 1.0).level == 3  # wider ones have failed
    assert TrustRegion(level=4).narrower() is None
