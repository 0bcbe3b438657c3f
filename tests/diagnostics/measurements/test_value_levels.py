"""Weights of the values of an individual are those of generalised least squares."""

import torch

from pyro_amortized.diagnostics.measurements.value_levels import level_weights

TIMES = torch.tensor([0.0, 1.0, 2.0, 3.0]).double()
LINES = torch.stack([torch.ones(4).double(), TIMES], 1)
COVARIANCE = LINES @ torch.diag(torch.tensor([1.0, 0.25]).double()) @ LINES.T + torch.eye(4)


def simulations(num, seed):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.randn(num, 2, 4, generator=generator).double()
    return unit @ torch.linalg.cholesky(COVARIANCE).T


def test_weights_of_lines_are_those_of_the_closed_form():
    observed = torch.ones(2, 4, dtype=torch.bool)
    found = level_weights(torch.zeros(2, 4) - 1, observed, simulations(20_000, 1), "continuous")
    sd = COVARIANCE.diagonal().sqrt()
    correlation = COVARIANCE / sd.outer(sd)
    slopes = 1 / sd
    exact = torch.linalg.solve(correlation + 0.02 * torch.eye(4), slopes)
    exact = exact / (exact @ correlation @ exact).sqrt()
    assert not found.are_logarithms
    assert torch.allclose(found.slopes[0], slopes, rtol=0.02)
    assert torch.allclose(found.weights[0], exact, atol=0.05)


def test_sums_have_variance_one_and_what_is_missing_has_no_weight():
    observed = torch.tensor([[True, True, False, True], [True, False, False, False]])
    drawn = torch.exp(simulations(4000, 2) / 4)
    found = level_weights(torch.ones(2, 4), observed, drawn, "continuous")
    assert found.are_logarithms
    assert bool((found.weights[~observed] == 0).all())
    scores = torch.special.ndtri((drawn.argsort(0).argsort(0) + 0.5) / 4000)
    sums = (found.weights * torch.where(observed, scores, 0.0)).sum(-1)
    assert torch.allclose(sums.var(0), torch.ones(2).double(), atol=0.01)
