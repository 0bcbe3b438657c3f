"""Targets whose mass is known, beside proposals that miss it."""

import math

import torch

from pyro_amortized.sampling.adaptive_importance import Sampler
from pyro_amortized.sampling.importance_weights import importance_estimate, normalized_weights
from pyro_amortized.sampling.student_mixture import fit_student_mixture
from pyro_amortized.sampling.unreliable_individuals import (
    draw_from_chains,
    refine_from_new_pilot,
)
from pyro_amortized.sampling.weighted_fits import tempered_weights


class NormalProposal:
    has_density = True

    def __init__(self, mean, sd):
        self.law = torch.distributions.Normal(
            torch.tensor(mean).double(), torch.tensor(sd).double()
        )

    def draw(self, num_draws, rows, generator):
        noise = torch.randn(num_draws, len(rows), 2, generator=generator, dtype=torch.float64)
        draws = self.law.mean + self.law.stddev * noise
        return draws, self.log_prob(draws, rows)

    def log_prob(self, draws, rows):
        return self.law.log_prob(draws).sum(-1)


class Foreign(NormalProposal):
    has_density = False


def run(log_target, proposal, num_draws=2000, num=4, seed=0):
    wide = NormalProposal(0.0, 4.0)

    def population(num_draws, rows, generator):
        return wide.draw(num_draws, rows, generator)[0]

    sampler = Sampler(lambda x, rows: log_target(x), population, wide.log_prob, proposal)
    found = sampler.sample(num_draws, num, torch.Generator().manual_seed(seed), refine=True)
    return found.weighted, tuple(found.refinement.refined.tolist())


def two_modes(x):
    """Two separate normals of mass 0.3 and 0.7; total mass 5."""
    part = torch.distributions.Normal(torch.zeros(2).double(), 0.3)
    left = part.log_prob(x + 2).sum(-1) + math.log(0.3)
    right = part.log_prob(x - 2).sum(-1) + math.log(0.7)
    return torch.logaddexp(left, right) + math.log(5.0)


def narrow(x):
    return torch.distributions.Normal(1.0, 0.02).log_prob(x).sum(-1)


def test_good_proposals_are_left_alone():
    drawn, method = run(
        lambda x: torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1), NormalProposal(0.0, 1.1)
    )
    assert method == (False,) * 4
    assert drawn.draws.shape == (2000, 4, 2)


def test_a_narrow_target_is_found():
    for proposal in (NormalProposal(0.0, 1.0), Foreign(0.0, 1.0)):
        drawn, method = run(narrow, proposal)
        found = importance_estimate(drawn.log_weights)
        assert True in method
        assert (found.ess > 1000).all()
        assert (found.pareto_k < 0.7).all()
        assert (found.log_mean.abs() < 4 * found.mc_error + 1e-3).all()


def test_both_modes_are_kept():
    drawn, _ = run(two_modes, NormalProposal(1.0, 1.5), num_draws=4000)
    found = importance_estimate(drawn.log_weights)
    assert ((found.log_mean - math.log(5.0)).abs() < 4 * found.mc_error + 1e-3).all()
    right = (normalized_weights(drawn.log_weights) * (drawn.draws[..., 0] > 0)).sum(0)
    assert ((right - 0.7).abs() < 0.05).all()


def test_tempering_keeps_draws():
    log_weights = torch.zeros(1000, 1, dtype=torch.float64)
    log_weights[0] = 500.0
    log_weights[1:100] = torch.linspace(0, 60, 99).double().unsqueeze(-1)
    weights = tempered_weights(log_weights, 50.0)
    assert 1 / weights.pow(2).sum() >= 50


def test_mixture_density_integrates_to_one():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(500, 3, 2, generator=generator, dtype=torch.float64)
    draws[250:] += 6.0
    weights = torch.full((500, 3), 1 / 500, dtype=torch.float64)
    mixture = fit_student_mixture(draws, weights, 2, generator)
    sample = mixture.draw(20_000, generator)
    wide = torch.distributions.StudentT(5.0, torch.tensor(3.0).double(), 4.0)
    points = wide.sample((40_000, 3, 2))
    ratio = (mixture.log_prob(points) - wide.log_prob(points).sum(-1)).exp()
    error = ratio.std(0) / len(ratio) ** 0.5
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all()
    assert torch.allclose(sample.mean(0), torch.tensor(3.0).double(), atol=0.2)


def test_a_chain_finds_what_draws_have_missed():
    """Weighted draws far from a bent ridge; the mixture fitted to the chain has its mass, 1."""

    def ridge(x, rows):
        first = torch.distributions.Normal(0.0, 1.0).log_prob(x[..., 0])
        second = torch.distributions.Normal(x[..., 0] ** 2, 0.3).log_prob(x[..., 1])
        return first + second

    wide, poor = NormalProposal(0.0, 4.0), NormalProposal(4.0, 0.5)

    def population(num_draws, rows, generator):
        return wide.draw(num_draws, rows, generator)[0]

    sampler = Sampler(ridge, population, wide.log_prob, poor)
    generator = torch.Generator().manual_seed(1)
    found = sampler.sample(1000, 2, generator, refine=False)
    assert (importance_estimate(found.weighted.log_weights).ess < 20).all()
    after_chain, rows = draw_from_chains(sampler, found, torch.tensor([1]), generator)
    assert rows == [1]
    assert found.refinement.refined.tolist() == [False, False]
    after = importance_estimate(after_chain.weighted.log_weights)
    assert after_chain.refinement.refined.tolist() == [False, True]
    assert after.ess[0] < 20 < 200 < after.ess[1]
    assert after.pareto_k[1] < 0.7
    assert after.log_mean[1].abs() < 4 * after.mc_error[1]
    flat = Sampler(lambda x, rows: ridge(x.detach(), rows), population, wide.log_prob, poor)
    assert draw_from_chains(flat, found, torch.tensor([0]), generator) == (found, [])


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
    first = sampler(0.0).sample(300, 4, generator, refine=True)
    assert bool(first.refinement.refined.any())
    weighted, refinement = first
    tensors = [*vars(weighted).values(), refinement.refined]
    tensors += [*vars(refinement.mixture).values(), *vars(refinement.guide).values()]
    versions = [x._version for x in tensors]
    sampler(0.5).sample(300, 4, generator, refine=True, known=refinement)
    refine_from_new_pilot(sampler(0.5), first, torch.arange(4), generator)
    draw_from_chains(sampler(0.5), first, torch.arange(1), generator)
    assert [x._version for x in tensors] == versions
