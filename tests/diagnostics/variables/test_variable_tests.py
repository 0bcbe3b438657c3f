"""One level of several that differs is found, and p-values are not too small."""

import numpy as np
import scipy.stats

from pyro_amortized.diagnostics.variables.compared_variables import Variable
from pyro_amortized.diagnostics.variables.variable_tests import (
    dependence_p_value,
    regression_p_value,
)

NUM = 48
EVERY = np.ones(NUM, bool)


def p_value_of(y, variable):
    def by_columns(columns):
        return regression_p_value(y, np.column_stack([np.ones(NUM), columns]))

    return dependence_p_value(variable, EVERY, by_columns)


def test_p_values_of_sites_that_are_alike_are_not_too_small():
    rng, p_values = np.random.default_rng(1), []
    for _ in range(2000):
        site = Variable("site", rng.choice(5, NUM).astype(float))
        p_values.append(p_value_of(rng.standard_normal(NUM), site))
    for level in (0.001, 0.01, 0.1):
        assert np.less(p_values, level).sum() <= scipy.stats.binom.ppf(0.999, 2000, level)
    assert np.less(p_values, 0.2).mean() > 0.1


def test_one_site_that_differs_has_a_smaller_p_value_than_all_sites_together():
    rng, ratios = np.random.default_rng(2), []
    site = Variable("site", np.arange(NUM) % 6.0)
    for _ in range(200):
        y = rng.standard_normal(NUM) + 1.8 * (site.values == 4)
        levels = [site.values == k for k in range(1, 6)]
        design = np.column_stack([np.ones(NUM), *levels]).astype(float)
        ratios.append(np.log(p_value_of(y, site) / regression_p_value(y, design)))
    assert np.mean(ratios) + 3 * np.std(ratios) / 200**0.5 < -0.5


def test_two_levels_are_compared_as_before():
    y, sex = np.random.default_rng(3).standard_normal(NUM), Variable("sex", np.arange(NUM) % 2.0)
    design = np.column_stack([np.ones(NUM), sex.values])
    assert p_value_of(y, sex) == regression_p_value(y, design)
