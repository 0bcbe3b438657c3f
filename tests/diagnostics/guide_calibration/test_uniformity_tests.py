"""P-values and bands are right for uniform numbers and detect others."""

import numpy as np

from pyro_amortized.diagnostics.guide_calibration.uniformity_tests import (
    independence_p_value,
    simultaneous_band,
    uniform_p_value,
)


def test_p_values_of_uniform_numbers_are_uniform():
    rng = np.random.default_rng(1)
    p = uniform_p_value(rng.random((200, 300)))
    assert 0.02 < (p < 0.05).mean() < 0.09
    assert uniform_p_value(rng.random((200, 1)) ** 1.5)[0] < 0.01
    points, low, high = simultaneous_band(200)
    curves = (rng.random((200, 300))[None] <= points[:, None, None]).mean(1)
    share_inside = ((low[:, None] <= curves) & (curves <= high[:, None])).all(0).mean()
    assert 0.91 < share_inside < 0.99


def test_p_values_of_gross_deviations_are_as_small_as_the_tests_of_many_parameters_need():
    """With 20 parameters, one in 4,001 would not be enough to fail."""
    assert uniform_p_value(np.full((200, 1), 0.999))[0] < 1e-10


def test_levels_that_depend_on_the_data_are_seen():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 2))
    assert independence_p_value(rng.random(300), x) > 0.001
    assert independence_p_value(1 / (1 + np.exp(-x[:, 0])), x) < 1e-6
