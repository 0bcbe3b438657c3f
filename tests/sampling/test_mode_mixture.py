"""Mixtures around modes and along narrow curved regions, where the proposal is far too wide."""

import math

import torch

from pyro_amortized.sampling.adaptive_importance import sample_targets
from pyro_amortized.sampling.importance_weights import importance_estimate, normalized_weights
from pyro_amortized.sampling.mode_mixture import (
    differential_evolution,
    find_modes,
    mixture_around_modes,
)
from pyro_amortized.sampling.sampler import Sampler
from tests.sampling.targets import Foreign, NormalProposal

D, NUM = 4, 6


def normal(x, mean, sd):
    return torch.distributions.Normal(mean, sd).log_prob(x)


def two_narrow_modes(x):
    """Two normals of width 0.01, masses 0.2 and 0.8, at -1 and 1 in the first coordinate."""
    rest = normal(x[..., 1:], 0.3, 0.01).sum(-1)
    left = normal(x[..., 0], -1.0, 0.01) + math.log(0.2)
    right = normal(x[..., 0], 1.0, 0.01) + math.log(0.8)
    return torch.logaddexp(left, right) + rest


def ridge(x):
    """Narrow in three coordinates, whose centre bends with the first, which is flat to the left."""
    first = x[..., 0]
    flat = torch.nn.functional.logsigmoid(-4 * first) + normal(first, 0.0, 2.0) + math.log(2.0)
    bend = 0.05 * first.exp().clamp(max=10)
    return flat + normal(x[..., 1:], bend.unsqueeze(-1), 0.02).sum(-1)


def sampled(log_target, num_draws=1000, seed=0):
    guide, wide = NormalProposal(0.0, 1.0), NormalProposal(0.0, 2.0)

    class Proposal:
        has_density = True

        def draw(self, num_draws, rows, generator):
            shape = (num_draws, len(rows), D)
            draws = guide.distribution.stddev * torch.randn(*shape, generator=generator).double()
            return draws, self.log_prob(draws, rows)

        def log_prob(self, draws, rows):
            return guide.distribution.log_prob(draws).sum(-1)

    def population(num, rows, generator):
        return 2 * torch.randn(num, len(rows), D, generator=generator, dtype=torch.float64)

    sampler = Sampler(
        lambda x, rows: log_target(x),
        population,
        lambda x, rows: wide.log_prob(x, rows),
        Proposal(),
    )
    return sample_targets(sampler, num_draws, NUM, torch.Generator().manual_seed(seed), refine=True)


def test_two_narrow_modes_are_both_found():
    drawn = sampled(two_narrow_modes)
    assert bool(drawn.refinement.refined.all())
    estimate = importance_estimate(drawn.weighted.log_weights)
    assert (estimate.ess > 300).all()
    assert (estimate.log_mean.abs() < 4 * estimate.mc_error).all()
    weights = normalized_weights(drawn.weighted.log_weights)
    left = (weights * (drawn.weighted.draws[..., 0] < 0)).sum(0)
    assert ((left - 0.2).abs() < 0.08).all()


def test_a_bent_ridge_is_followed_to_its_end():
    drawn = sampled(ridge, num_draws=2000)
    estimate = importance_estimate(drawn.weighted.log_weights)
    first = torch.linspace(-20, 20, 20_001).double()
    flat = torch.nn.functional.logsigmoid(-4 * first) + normal(first, 0.0, 2.0) + math.log(2.0)
    exact = float((flat + math.log(40 / 20_000)).logsumexp(0))
    assert (estimate.ess > 300).all()
    assert ((estimate.log_mean - exact).abs() < 4 * estimate.mc_error).all()
    assert abs(float((estimate.log_mean - exact).mean())) < 0.05


def test_a_known_refinement_is_tried_first():
    drawn = sampled(two_narrow_modes)
    calls = []

    def target(x, rows):
        calls.append(x.shape[0] * x.shape[1])
        return two_narrow_modes(x + 0.002)

    wide = NormalProposal(0.0, 2.0)

    def population(num, rows, generator):
        return 2 * torch.randn(num, len(rows), D, generator=generator, dtype=torch.float64)

    sampler = Sampler(target, population, lambda x, rows: wide.log_prob(x, rows), Foreign(0.0, 1.0))
    generator = torch.Generator().manual_seed(1)
    redrawn = sample_targets(sampler, 500, NUM, generator, refine=True, known=drawn.refinement)
    assert sum(calls) <= 2 * 500 * NUM  # at most one batch to adapt
    estimate = importance_estimate(redrawn.weighted.log_weights)
    assert (estimate.log_mean.abs() < 4 * estimate.mc_error).all()


def test_points_keep_their_distribution():
    generator = torch.Generator().manual_seed(2)
    starts = torch.randn(32, 5, 2, generator=generator, dtype=torch.float64)
    path = differential_evolution(lambda x: normal(x, 0.0, 1.0).sum(-1), starts, 400, generator)
    assert path.shape == (400, 32, 5, 2)
    kept = path.flatten(0, 1)
    assert kept.mean(0).abs().max() < 0.12
    assert (kept.std(0) - 1).abs().max() < 0.08


def test_a_target_that_is_nowhere_finite_gives_a_finite_mixture():
    generator = torch.Generator().manual_seed(3)
    draws = torch.randn(100, 2, 3, generator=generator, dtype=torch.float64)

    def nowhere(x):
        return torch.full(x.shape[:-1], -math.inf, dtype=x.dtype)

    modes = find_modes(lambda rows: nowhere, draws, torch.full((100, 2), -math.inf).double())
    mixture = mixture_around_modes(nowhere, modes, generator)
    assert bool(mixture.means.isfinite().all())
    assert bool(mixture.scale_trils.isfinite().all())


def curved_valley(x):
    """Rosenbrock's function as a log density: its maximum is one at ones, in a bent valley."""
    across = (x[..., 1:] - x[..., :-1].square()) / 0.02
    return -across.square().sum(-1) / 2 - ((1 - x[..., :-1]) / 0.1).square().sum(-1) / 2


def test_newton_steps_go_on_until_the_mode_is_reached():
    """Five steps ended up to thousands below the modes of 3 of 1,000 cells (a fit then stopped)."""
    generator = torch.Generator().manual_seed(4)
    draws = 3 * torch.randn(100, 5, 2, generator=generator, dtype=torch.float64)
    modes = find_modes(lambda rows: curved_valley, draws, curved_valley(draws))
    best = curved_valley(modes.mixture.means).amax(1)
    assert best.min() > -0.1
