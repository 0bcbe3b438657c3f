"""Shrinkage of the conditional means, for few and for many individuals."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.population.results import conditional_shrinkage
from pyro_amortized.population.results.conditional_shrinkage import ShrinkageSettings, eta_shrinkage
from tests.exact import TRUTH, exact_posterior, linear_program


@pytest.fixture
def drawn(linear):
    return pa.sample_individuals(linear_program, linear, TRUTH, num_draws=200, seed=1)


def test_it_is_that_of_the_exact_means(drawn, linear):
    means = exact_posterior(linear, TRUTH)[0]
    exact = 1 - ((means - TRUTH["mean"]) / TRUTH["omega"]).std(0)
    found = torch.tensor(list(eta_shrinkage(drawn, 4_000, 0).values()))
    assert torch.allclose(found, exact.float(), atol=0.03)


def test_many_individuals_get_fewer_draws_in_parts(drawn, monkeypatch):
    few = ShrinkageSettings(max_draws=20_000, max_rows=2_000)
    whole = eta_shrinkage(drawn, 2_000, 0)
    monkeypatch.setattr(conditional_shrinkage, "SHRINKAGE", few)
    in_parts = eta_shrinkage(drawn, 2_000, 0)
    assert list(in_parts) == list(whole)
    assert all(abs(in_parts[name] - whole[name]) < 0.05 for name in whole)
