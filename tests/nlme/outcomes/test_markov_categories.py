"""Markov chains of categories: density, missing categories, simulation."""

import itertools

import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import ModelError

INITIAL = torch.tensor([0.5, 0.3, 0.2]).double()
STEP = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]]).double()


def paths(num_times):
    return torch.tensor(list(itertools.product(range(3), repeat=num_times))).double()


def chain(observed):
    return nlme.MarkovCategories(INITIAL, STEP, observed)


def test_probabilities_of_all_paths_are_products_and_sum_to_one():
    every = paths(4)
    probability = chain(torch.ones(len(every), 4).bool()).log_prob(every).exp()
    assert float(probability.sum()) == pytest.approx(1.0)
    path = torch.tensor([[1.0, 1.0, 2.0, 0.0]]).double()
    one = chain(torch.ones(1, 4).bool()).log_prob(path).exp()
    assert float(one) == pytest.approx(0.3 * 0.6 * 0.3 * 0.25)


def test_missing_categories_are_summed_over():
    observed = torch.tensor([[True, False, False, True]])
    every = paths(4)
    probability = chain(torch.ones(len(every), 4).bool()).log_prob(every).exp()
    agree = (every[:, 0] == 2) & (every[:, 3] == 0)
    value = torch.tensor([[2.0, 1.0, 1.0, 0.0]]).double()
    assert float(chain(observed).log_prob(value).exp()) == pytest.approx(
        float(probability[agree].sum())
    )


def test_simulated_chains_have_these_probabilities():
    torch.manual_seed(0)
    num = 40_000
    drawn = chain(torch.ones(num, 3).bool()).sample()
    every = paths(3)
    expected = chain(torch.ones(len(every), 3).bool()).log_prob(every).exp()
    found = (drawn.unsqueeze(1) == every).all(-1).double().mean(0)
    assert float(((found - expected) / (expected * (1 - expected) / num).sqrt()).abs().max()) < 4
    mean = chain(torch.ones(1, 3).bool()).mean[0]
    assert float((drawn.mean(0) - mean).abs().max()) < 0.02


def test_impossible_categories_and_shapes():
    assert chain(torch.ones(1, 2).bool()).log_prob(torch.tensor([[0.0, 3.0]])) == -torch.inf
    with pytest.raises(ModelError, match="individual=2"):
        nlme.MarkovCategories(INITIAL, STEP.expand(5, 3, 3), torch.ones(2, 4).bool())
