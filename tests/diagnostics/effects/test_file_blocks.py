"""Blocks of the file that differ are found wherever they begin; p-values are not too small."""

import numpy as np
import pytest
import scipy.stats

from pyro_amortized.diagnostics.effects.file_blocks import block_p_value

NUM = 48


def families(rng, length, correlation, offset):
    block = (np.arange(NUM) + offset) // length
    shared = rng.standard_normal(NUM)[block]
    return correlation**0.5 * shared + (1 - correlation) ** 0.5 * rng.standard_normal(NUM)


@pytest.mark.parametrize(("length", "offset"), [(3, 1), (6, 4), (12, 7)])
def test_families_are_found(length, offset):
    rng = np.random.default_rng(length)
    p_values = [block_p_value(families(rng, length, 0.85, offset), np.ones(NUM)) for _ in range(50)]
    assert np.less(p_values, 0.001).mean() > 0.85


def test_p_values_of_independent_individuals_are_not_too_small():
    rng, p_values = np.random.default_rng(1), []
    for _ in range(600):
        root = rng.uniform(0.5, 1.0, NUM)
        p_values.append(block_p_value(rng.standard_normal(NUM) + 2.0 * root, root))
    for level in (0.005, 0.02, 0.1):
        assert np.less(p_values, level).sum() <= scipy.stats.binom.ppf(0.999, 600, level)
    assert np.less(p_values, 0.5).mean() > 0.1


def test_one_comparison_is_the_f_test():
    """Of nine individuals there are blocks of three alone, at three places."""
    y = np.array([1.0, 1.2, 0.9, -1.0, -1.1, -0.8, 0.1, 0.0, 0.3])
    expected = scipy.stats.f_oneway(y[:3], y[3:6], y[6:]).pvalue
    assert block_p_value(y, np.ones(9)) == pytest.approx(3 * expected)
