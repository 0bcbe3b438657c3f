"""Interactions and variances that depend on a variable are found; right models pass."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from pyro_amortized.diagnostics.effects.effect_dependence import interaction, neighbours, spread
from pyro_amortized.diagnostics.variables.compared_variables import Variable
from tests.diagnostics.effects.test_random_effect_analysis import posteriors, some_variables

NUM = 48
SEX, GROUP = (Variable(n, np.arange(NUM) // k % 2.0) for n, k in (("sex", 2), ("group", 1)))


def effects_of(change):
    generator = torch.Generator().manual_seed(3)
    effects = torch.randn(NUM, 2, generator=generator).double()
    change(effects[:, 0])
    return posteriors((effects - effects.mean(0)) / effects.std(0), 0.9, generator)


def test_an_interaction_without_effects_of_its_own_is_found():
    def change(effect):
        effect += 1.5 * torch.as_tensor((2 * SEX.values - 1) * (2 * GROUP.values - 1))

    effects = effects_of(change)
    (found,) = interaction(effects, 0, SEX, GROUP)
    assert found.p_value < 1e-5
    assert "depend" in found.words
    assert found.against == "sex and group"
    (other,) = interaction(effects, 1, SEX, GROUP)
    assert other.p_value > 0.01


def test_a_variance_that_differs_is_found():
    def change(effect):
        effect *= torch.as_tensor(1 + 3 * SEX.values)

    effects = effects_of(change)
    (found,) = spread(effects, 0, SEX)
    assert found.p_value < 1e-4
    assert "grows" in found.words
    (other,) = spread(effects, 1, SEX)
    assert other.p_value > 0.01


def test_a_batch_of_individuals_in_a_row_is_found():
    def change(effect):
        effect[12:24] += 4.0

    effects = effects_of(change)
    (found,) = neighbours(effects, 0)
    assert found.p_value < 1e-4
    assert "neighbours in the order of the file is alike" in found.words
    (other,) = neighbours(effects, 1)
    assert other.p_value > 0.01


@pytest.mark.parametrize("reliability", [0.2, 0.9])
def test_p_values_of_independent_neighbours_are_not_too_small(reliability):
    generator = torch.Generator().manual_seed(7)
    p_values = []
    for _ in range(400):
        drawn = torch.randn(NUM, 1, generator=generator).double()
        p_values += [x.p_value for x in neighbours(posteriors(drawn, reliability, generator), 0)]
    for level in (0.01, 0.05, 0.2):
        allowed = scipy.stats.binom.ppf(0.999, len(p_values), level)
        assert np.less(p_values, level).sum() <= allowed


def test_few_individuals_of_a_level_are_not_compared():
    rare = Variable("rare", np.repeat([0.0, 1.0], [NUM - 2, 2]))
    effects = effects_of(lambda _: None)
    assert list(spread(effects, 0, rare)) == []
    assert list(interaction(effects, 0, rare, SEX)) == []
    assert list(interaction(effects, 0, SEX, Variable("size", np.linspace(0, 1, NUM)))) == []


@pytest.mark.parametrize("reliability", [0.2, 0.8])
def test_p_values_of_a_right_model_are_uniform(reliability):
    generator, rng = torch.Generator().manual_seed(5), np.random.default_rng(5)
    hits = []
    for _ in range(60):
        effects = posteriors(
            torch.randn(NUM, 2, generator=generator).double(), reliability, generator
        )
        variables = some_variables(NUM, rng)
        tests = [t for v in variables for t in spread(effects, 0, v)]
        for pair in itertools.combinations(variables, 2):
            tests += interaction(effects, 1, *pair)
        hits += [t.p_value < 0.05 for t in tests]
    assert sum(hits) <= scipy.stats.binom.ppf(0.9999, len(hits), 0.05)
    assert sum(hits) >= scipy.stats.binom.ppf(0.0001, len(hits), 0.03)


def test_p_values_of_interactions_are_uniform_with_few_individuals_in_a_cell():
    """Four sites of different size and two groups; also far in the tail, where a model fails."""
    generator, rng = torch.Generator().manual_seed(6), np.random.default_rng(6)
    p_values = []
    for _ in range(2000):
        site, group = rng.choice(4, NUM, p=[0.4, 0.25, 0.2, 0.15]), rng.random(NUM) < 0.4
        cells = Variable("site", site.astype(float)), Variable("group", group.astype(float))
        drawn = torch.randn(NUM, 1, generator=generator).double()
        p_values += [x.p_value for x in interaction(posteriors(drawn, 0.6, generator), 0, *cells)]
    assert len(p_values) > 400
    for level in (0.001, 0.01, 0.1, 0.5):
        low, high = scipy.stats.binom.ppf([0.0005, 0.9995], len(p_values), level)
        assert low <= np.less(p_values, level).sum() <= high
