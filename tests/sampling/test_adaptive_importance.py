"""Targets of known mass, with proposals that miss it."""

import math

import pytest
import torch

from pyro_amortized.sampling.adaptive_importance import sample_targets
from pyro_amortized.sampling.importance_weights import importance_estimate, normalized_weights
from pyro_amortized.sampling.sampler import Sampler
from pyro_amortized.sampling.unreliable_individuals import (
    draw_from_chains,
    refine_from_new_pilot,
)
from tests.sampling.targets import Foreign, NormalProposal, narrow, run, two_modes


def test_good_proposals_are_left_alone():
    drawn, method = run(
        lambda x: torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1), NormalProposal(0.0, 1.1)
    )
    assert method == (False,) * 4
    assert drawn.draws.shape == (2000, 4, 2)


def test_a_narrow_target_is_found():
    for proposal in (NormalProposal(0.0, 1.0), Foreign(0.0, 1.0)):
        drawn, method = run(narrow, proposal)
        estimate = importance_estimate(drawn.log_weights)
        assert True in method
        assert (estimate.ess > 1000).all()
        assert (estimate.pareto_k < 0.7).all()
        assert (estimate.log_mean.abs() < 4 * estimate.mc_error + 1e-3).all()


def test_both_modes_are_found():
    drawn, _ = run(two_modes, NormalProposal(1.0, 1.5), num_draws=4000)
    estimate = importance_estimate(drawn.log_weights)
    assert ((estimate.log_mean - math.log(5.0)).abs() < 4 * estimate.mc_error + 1e-3).all()
    right = (normalized_weights(drawn.log_weights) * (drawn.draws[..., 0] > 0)).sum(0)
    assert ((right - 0.7).abs() < 0.05).all()


@pytest.mark.slow
def test_sampling_changes_no_tensor_of_its_input():
    """Refinements and draws are values: a new sample leaves the known ones as they are."""
    wide, guide = NormalProposal(0.0, 4.0), NormalProposal(1.0, 1.5)

    def population(num_draws, rows, generator):
        return wide.draw(num_draws, rows, generator)[0]

    def sampler(shift):
        def target(x, rows):
            return two_modes(x + shift)

        return Sampler(target, population, wide.log_prob, guide)

    generator = torch.Generator().manual_seed(2)
    first = sample_targets(sampler(0.0), 300, 4, generator, refine=True)
    assert bool(first.refinement.refined.any())
    weighted, refinement = first
    tensors = [*vars(weighted).values(), refinement.stage]
    tensors += [*vars(refinement.mixture).values(), *vars(refinement.guide).values()]
    versions = [x._version for x in tensors]
    sample_targets(sampler(0.5), 300, 4, generator, refine=True, known=refinement)
    refine_from_new_pilot(sampler(0.5), first, torch.arange(4), generator)
    draw_from_chains(sampler(0.5), first, torch.arange(1), generator)
    assert [x._version for x in tensors] == versions


def test_draws_of_an_impossible_target_are_those_of_a_mixture():
    """No draw has a weight; they are real draws with their density nevertheless."""

    def nowhere(x):
        return torch.full(x.shape[:-1], -torch.inf, dtype=x.dtype)

    weighted, refined = run(nowhere, NormalProposal(0.0, 1.0), num_draws=200)
    assert all(refined)
    assert bool((weighted.log_weights == -torch.inf).all())
    assert bool(weighted.draws.std(0).gt(0).all())
    assert bool(weighted.log_proposal.ne(0).all())
