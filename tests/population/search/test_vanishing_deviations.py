"""Standard deviations that cannot be distinguished from zero."""

import math
from dataclasses import replace

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.likelihood.exact_likelihood import ExactLikelihood
from pyro_amortized.population.likelihood.expanded_likelihood import ExpandedLikelihood
from pyro_amortized.population.likelihood.likelihood_choice import gains_from, gains_of_one
from pyro_amortized.population.search import vanishing_deviations as module
from tests.exact import TRUTH, linear_cohort, linear_program
from tests.outcome_models import poisson_counts


def test_a_change_that_is_no_number_is_not_taken_for_none(fit, monkeypatch):
    likelihood = ExactLikelihood(fit.individuals, follow(fit.individuals, fit.search.scale))
    model = (fit.structure, fit.cohort, likelihood, fit.vector)
    assert not module.vanishing_coordinates(*model, 0).any()
    monkeypatch.setattr(module, "_change", lambda gains: module.Change(0.0, 0.0, 0.0))
    assert module.vanishing_coordinates(*model, 0).any()
    for total, median in ((math.nan, 0.0), (0.0, math.nan)):
        unknown = module.Change(total, 0.0, median)
        monkeypatch.setattr(module, "_change", lambda gains, unknown=unknown: unknown)
        assert not module.vanishing_coordinates(*model, 0).any()


def test_without_data_no_standard_deviation_can_be_distinguished_from_zero():
    """The marginal likelihood is 1, whatever their distribution. Of 400 individuals, halves and
    doubles on the moved draws change the logarithm by 0.6.
    """
    cohort = linear_cohort(400, seed=3)
    y = cohort["y"]
    nothing = replace(cohort, series={"y": pa.Series(y.times, y.values, y.observed & False)})
    individuals = pa.sample_individuals(linear_program, nothing, TRUTH, num_draws=150, seed=1)
    structure = individuals.structure
    vector = structure.unconstrain_population(TRUTH)
    likelihood = ExactLikelihood(individuals, follow(individuals, torch.ones(5).double()))
    held = module.vanishing_coordinates(structure, nothing, likelihood, vector, 0)
    assert held.tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("expanded", [False, True])
def test_draws_of_one_parameter_follow_its_standard_deviation(expanded):
    """Without data the marginal likelihood is 1: along straight lines the sum over 400 individuals
    changed by 1.
    """
    nothing = pa.nlme.study([1.0, 2.0], num_individuals=400, series="y")
    nothing = nothing.with_values({"y": torch.zeros(400, 2).double()})
    y = nothing["y"]
    nothing = replace(nothing, series={"y": pa.Series(y.times, y.values, y.observed & False)})
    population = {"mean": torch.tensor(0.3).double(), "omega": torch.tensor(0.5).double()}
    individuals = pa.sample_individuals(poisson_counts, nothing, population, num_draws=150, seed=1)
    scale = torch.ones(2).double()
    following = follow(individuals, scale)
    likelihood = ExactLikelihood(individuals, following)
    if expanded:
        likelihood = ExpandedLikelihood(individuals, scale, following=following)
    gains = gains_of_one(likelihood, population)
    straight = gains_from(likelihood, population)
    for factor in (0.5, 2.0, 16.0):
        moved = population | {"omega": factor * population["omega"]}
        assert float(gains(moved).changes.sum().abs()) < 0.01
        assert float(straight(moved).changes.sum().abs()) > 0.1
