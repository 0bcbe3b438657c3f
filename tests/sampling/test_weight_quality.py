import math

import torch

from pyro_amortized.sampling.importance_weights import importance_estimate
from pyro_amortized.sampling.weight_quality import comparable_ess, is_poor, unreliable


def log_weights():
    """Equal weights; weights of a light tail; one draw with all the weight."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, generator=generator, dtype=torch.float64)
    one = torch.full((1000,), -math.inf, dtype=torch.float64)
    one[3] = 0.0
    return torch.stack([torch.zeros_like(x), 0.5 * x, one], 1)


def test_poor_weights_have_few_effective_draws():
    weights = log_weights()
    assert is_poor(weights, 0.9).tolist() == [False, True, True]
    assert is_poor(weights, 0.5).tolist() == [False, False, True]
    limits = torch.tensor([0.5, 0.9, 0.0])
    assert is_poor(weights, limits).tolist() == [False, True, True]  # the last by Pareto k


def test_the_tail_of_nearly_equal_weights_is_noise():
    """A few draws stick out of equal weights: Pareto k is large, and nearly all are effective."""
    weights = torch.zeros(1000, 1, dtype=torch.float64)
    weights[:20, 0] = (0.02 * (torch.arange(1, 21).double() / 21) ** -2.0).log1p()
    estimate = importance_estimate(weights)
    assert float(estimate.pareto_k) > 0.7
    assert float(estimate.ess) > 900
    assert not is_poor(weights, 0.5).any()
    assert not unreliable(estimate, 1000).any()
    assert torch.allclose(comparable_ess(weights), estimate.ess)


def test_unreliable_weights_and_their_comparison():
    weights = log_weights()
    estimate = importance_estimate(weights)
    assert unreliable(estimate, 1000).tolist() == [False, False, True]
    ess = comparable_ess(weights)
    assert torch.allclose(ess[:2], estimate.ess[:2])
    assert float(ess[2]) < 0.1
