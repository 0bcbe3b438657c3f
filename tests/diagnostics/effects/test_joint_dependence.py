"""Effects that a variable moves together are found, though each alone moves little."""

import numpy as np
import pytest
import scipy.stats
import torch

from pyro_amortized.diagnostics.effects.effect_dependence import dependence
from pyro_amortized.diagnostics.effects.joint_dependence import joint_dependence
from pyro_amortized.diagnostics.variables.compared_variables import Variable
from pyro_amortized.diagnostics.variables.variable_tests import contrast
from tests.diagnostics.effects.test_random_effect_analysis import posteriors, some_variables

NUM = 48
SITE = Variable("site", np.arange(NUM) % 4.0)


def moved_together(size):
    generator = torch.Generator().manual_seed(4)
    effects = torch.randn(NUM, 3, generator=generator).double()
    effects += size * torch.as_tensor(SITE.values == 1).double().unsqueeze(1)
    return posteriors((effects - effects.mean(0)) / effects.std(0), 0.9, generator)


def test_a_move_of_all_effects_is_more_significant_than_each_alone():
    effects = moved_together(1.8)
    (found,) = joint_dependence(effects, [0, 1, 2], SITE)
    alone = [next(dependence(effects, j, SITE, "variable")).p_value for j in range(3)]
    assert found.p_value < 1e-4
    assert found.p_value < 0.1 * min(alone)
    assert found.against == "site"
    assert "where site is 1 than elsewhere" in found.words
    assert found.size > 0.5


def test_one_effect_is_tested_alone():
    assert list(joint_dependence(moved_together(2.0), [1], SITE)) == []


def test_few_individuals_are_not_tested():
    few = Variable("few", np.where(np.arange(NUM) < 8, np.arange(NUM) % 2, np.nan))
    assert list(joint_dependence(moved_together(2.0), [0, 1, 2], few)) == []


@pytest.mark.parametrize(("num", "reliability"), [(14, 0.8), (40, 0.3)])
def test_p_values_of_a_right_model_are_uniform(num, reliability):
    generator, rng = torch.Generator().manual_seed(num), np.random.default_rng(num)
    p_values = []
    for _ in range(100):
        effects = posteriors(
            torch.randn(num, 3, generator=generator).double(), reliability, generator
        )
        for variable in some_variables(num, rng):
            p_values += [t.p_value for t in joint_dependence(effects, [0, 1, 2], variable)]
    for level in (0.05, 0.3):
        hits = (np.array(p_values) < level).sum()
        expected = scipy.stats.binom(len(p_values), level)
        assert expected.ppf(1e-4) <= hits <= expected.ppf(1 - 1e-4), level


def test_the_level_that_differs_is_named():
    x = np.arange(40) % 4.0
    variable, root = Variable("site", x), np.ones(40)
    found = contrast(np.where(x == 2, 1.0, 0.0) + 0.01 * x, root, variable, root > 0)
    assert found.where == "where site is 2 than elsewhere"
    assert abs(found.slope - 1) < 0.02
