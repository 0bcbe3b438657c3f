"""What a round keeps of the draws of many individuals."""

from dataclasses import fields

import torch

import pyro_amortized as pa
from pyro_amortized.population.likelihood.large_cohorts.individual_blocks import summary_by_blocks
from pyro_amortized.population.likelihood.large_cohorts.summarized_draws import (
    BlockSummary,
    block_summary,
)
from tests.exact import TRUTH, linear_program


def drawn(cohort, num_draws=50):
    return pa.sample_individuals(linear_program, cohort, TRUTH, num_draws=num_draws, seed=1)


def num_elements(summary):
    """Number of numbers in all tensors of a summary."""
    tensors = [summary.moments]
    for part in (summary.estimate, summary.following, summary.refinement):
        for value in (getattr(part, f.name) for f in fields(part)):
            inner = vars(value).values() if hasattr(value, "means") else [value]
            tensors += [x for x in inner if isinstance(x, torch.Tensor)]
    return sum(x.numel() for x in tensors)


def test_its_size_does_not_depend_on_the_number_of_draws(linear):
    scale = torch.ones(5).double()
    few, many = (block_summary(drawn(linear, n), scale) for n in (50, 400))
    assert num_elements(few) == num_elements(many)


def test_blocks_together_are_the_whole(linear):
    individuals, scale = drawn(linear), torch.ones(5).double()
    whole = block_summary(individuals, scale)
    rows = torch.arange(len(linear))
    parts = [block_summary(individuals.take(x), scale) for x in rows.split(7)]
    joined = BlockSummary.joined(parts)
    assert torch.allclose(joined.following.scores, whole.following.scores, rtol=1e-9, atol=1e-9)
    assert torch.allclose(joined.following.rates, whole.following.rates, rtol=1e-6, atol=1e-9)
    errors = (joined.following.score_covariance, whole.following.score_covariance)
    assert torch.allclose(*errors, rtol=1e-6, atol=1e-12)
    assert torch.equal(joined.refinement.mixture.means, whole.refinement.mixture.means)
    for name in ("log_mean", "mc_error", "ess", "pareto_k"):
        ours, theirs = getattr(joined.estimate, name), getattr(whole.estimate, name)
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_it_stands_for_its_draws(linear):
    individuals = drawn(linear)
    kept = summary_by_blocks(individuals, torch.ones(5).double())
    assert kept.num_draws == 50
    assert kept.cohort is individuals.cohort
    assert torch.equal(kept.marginal_estimate.log_mean, individuals.marginal_estimate.log_mean)
    assert torch.equal(kept.refinement.stage, individuals.refinement.stage)
