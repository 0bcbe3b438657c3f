"""Estimates of the likelihood from further draws, combined with those that are there."""

import math

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.population.likelihood.likelihood_estimate import MarginalLikelihood
from pyro_amortized.population.results.likelihood_precision import (
    combined_estimates,
    with_precision,
)
from pyro_amortized.population.search.maximum_search import Search
from pyro_amortized.sampling.sampling_stage import Stage
from pyro_amortized.sampling.weighted_fits import refinement_of_draws
from tests import outcome_models
from tests.exact import TRUTH, exact_log_marginal, linear_program


def estimate(log_likelihood, errors, num_draws):
    zero = torch.zeros(len(errors)).double()
    return MarginalLikelihood(
        torch.tensor(log_likelihood).double(),
        torch.tensor(errors).double(),
        zero,
        zero,
        torch.full((len(errors),), num_draws),
        ("student-t mixture",) * len(errors),
    )


def test_estimates_that_agree_are_weighted_by_their_numbers_of_draws():
    first = estimate([0.0, -5.0], [0.01, 0.02], 100)
    both = combined_estimates(first, torch.tensor([1]), estimate([-5.0], [0.005], 300))
    share = 1 / (1 + 3**1.5)
    assert both.log_likelihood.tolist() == pytest.approx([0.0, -5.0])
    expected = math.hypot(share * 0.02, (1 - share) * 0.005)
    assert both.mc_error.tolist() == pytest.approx([0.01, expected])
    assert both.num_draws.tolist() == [100, 400]


def test_new_draws_without_any_weight_leave_a_known_error():
    """They are an estimate of zero, and the error contains the difference of the two estimates."""
    first = estimate([-5.0, -5.0], [0.8, 0.01], 100)
    new = estimate([-math.inf, -math.inf], [math.inf, math.inf], 300)
    both = combined_estimates(first, torch.tensor([0, 1]), new)
    share = 1 / (1 + 3**1.5)
    assert both.log_likelihood.tolist() == pytest.approx([-5.0 + math.log(share)] * 2)
    assert both.mc_error.tolist() == pytest.approx([0.8, 1 / 3])


def test_estimates_that_differ_by_many_errors_have_a_larger_one():
    first = estimate([0.0], [0.01], 100)
    both = combined_estimates(first, torch.tensor([0]), estimate([0.6], [0.01], 100))
    assert float(both.mc_error) > 0.09
    assert abs(float(both.log_likelihood) - 0.3) < 2 * float(both.mc_error)


def test_more_draws_leave_no_bias_in_the_sum_of_many_individuals():
    """Where those with the largest errors get more draws, the sum was 2.6 errors too small."""
    truth = outcome_models.truth_of("binary")
    design = outcome_models.trend_design(1_500, (0.0, 1.0, 2.0))
    cohort = outcome_models.simulated(outcome_models.binary, design, truth, 1)
    exact = -outcome_models.exact_minus2ll(outcome_models.binary, cohort, truth) / 2
    structure, distances = pa.read_structure(outcome_models.binary, cohort), []
    vector = structure.unconstrain_population(truth)
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        search = Search.begin(structure, None, cohort, "maximum likelihood", generator)
        drawn = search.draw(vector, 40, generator)
        first = float(drawn.marginal_estimate.mc_error.square().sum().sqrt())
        precise = with_precision(search, drawn, first / 6, generator)
        assert len(precise.num_draws.unique()) > 1  # not all have as many
        distances.append((precise.total - float(exact.sum())) / precise.total_mc_error)
    assert abs(sum(distances) / 6) < 3 / math.sqrt(6)
    assert max(abs(x) for x in distances) < 4


def test_draws_of_a_guide_are_continued_by_mixtures(linear, linear_guide):
    """Every individual has one, those that had one keep it, and the likelihood stays exact."""
    served = pa.sample_individuals(
        linear_program, linear, TRUTH, guide=linear_guide, num_draws=50, seed=1
    )
    by_guide = ~served.refinement.refined
    assert bool(by_guide.any())
    generator = torch.Generator().manual_seed(2)
    refinement = refinement_of_draws(served.sampled, generator)
    assert refinement.stage.tolist() == [Stage.MIXTURE] * len(linear)
    kept = refinement.mixture.take(~by_guide).means
    assert torch.equal(kept, served.refinement.mixture.take(~by_guide).means)

    search = Search.begin(served.structure, linear_guide, linear, "maximum likelihood", generator)
    precise = with_precision(search, served, 0.02, generator)
    assert precise.minus2ll_mc_error <= 0.02
    assert precise.num_draws.min() >= 50
    exact = float(exact_log_marginal(linear, TRUTH).sum())
    assert abs(precise.total - exact) < 4 * precise.total_mc_error
