"""Moves of draws, against the closed form of normal posteriors."""

import pytest
import torch

from pyro_amortized.population.following.draw_moves import fitted_moves, num_products

NUM_DRAWS, NUM_LATENT = 150, 7


@pytest.fixture(scope="module")
def normal():
    """u ~ N(0, s^2), y ~ N(u, 1), independently for every parameter, and draws given y."""
    generator = torch.Generator().manual_seed(1)
    sd = torch.linspace(0.1, 2.0, NUM_LATENT, dtype=torch.float64)
    y = torch.randn(2, NUM_LATENT, generator=generator, dtype=torch.float64)
    variance = sd**2 / (1 + sd**2)
    shape = (NUM_DRAWS, 2, NUM_LATENT)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    draws = y * variance + noise * variance.sqrt()
    slopes = draws.pow(2) / sd**2 - 1  # in log s
    gradients = -draws / sd**2 + y - draws
    return sd, draws, slopes, gradients


def moves_with(normal, effective):
    _, draws, slopes, gradients = normal
    weights = torch.full((NUM_DRAWS, 2), 1 / NUM_DRAWS, dtype=torch.float64)
    offset = draws - draws.mean(0)
    covariance = torch.einsum("kni,knj->nij", offset, offset) / NUM_DRAWS
    effective = torch.tensor(effective, dtype=torch.float64)
    return fitted_moves(covariance, offset, gradients, -slopes, weights, effective)


def test_stretches_of_normal_posteriors_have_no_monte_carlo_error(normal):
    """The variance s^2 / (1 + s^2) has the slope 2 s^2 / (1 + s^2)^2 in log s: with few draws by a
    stretch of each parameter, with many by all pairs.
    """
    sd = normal[0]
    moves = moves_with(normal, [NUM_DRAWS, 5.0 * num_products(NUM_LATENT)])
    variance = sd**2 / (1 + sd**2)
    expected = torch.diag_embed(torch.diag(2 * variance / (1 + sd**2)))
    rates = moves.rates.movedim(-1, 1)  # (individual, population, latent, latent)
    slopes = rates * variance + (rates * variance).mT
    assert torch.allclose(slopes, expected.expand_as(slopes), atol=1e-6)


def test_too_few_draws_are_not_stretched(normal):
    moves = moves_with(normal, [40.0, NUM_DRAWS])
    assert not bool(moves.rates[0].any())
    assert bool(moves.directions[0].any())
    assert bool(moves.rates[1].any())
