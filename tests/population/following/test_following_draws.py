"""Draws that follow the population, against closed forms."""

import math
from dataclasses import replace

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.following.following_draws import Following
from pyro_amortized.population.likelihood.exact_likelihood import ExactLikelihood
from tests.exact import TRUTH, exact_log_marginal, exact_posterior, linear_program


@pytest.fixture(scope="module")
def drawn(linear):
    individuals = pa.sample_individuals(linear_program, linear, TRUTH, num_draws=400, seed=1)
    vector = individuals.structure.unconstrain_population(TRUTH)
    return individuals, follow(individuals, torch.ones_like(vector)), vector


def test_the_draws_move_with_the_posterior_mean_and_scale(linear, drawn):
    """For a normal posterior the regression has no Monte Carlo error."""
    individuals, following, vector = drawn
    structure, step = individuals.structure, 1e-4
    for unit in torch.eye(len(vector), dtype=torch.float64):
        populations = [structure.constrain_population(vector + s * step * unit) for s in (1, -1)]
        (ahead, cov_ahead), (behind, cov_behind) = (exact_posterior(linear, p) for p in populations)
        slope = (cov_ahead - cov_behind) / (2 * step)
        # The exact mean moves the exact mean; the draws have a weighted mean beside it.
        exact_mean, covariance = exact_posterior(linear, TRUTH)
        at_mean = (exact_mean - following.mean).unsqueeze(-1)
        rates = following.rates @ unit
        moved = following.directions @ unit + (rates @ at_mean).squeeze(-1)
        assert torch.allclose(moved, (ahead - behind) / (2 * step), atol=1e-4)
        assert torch.allclose(rates @ covariance + covariance @ rates.mT, slope, atol=1e-4)
    spread = exact_posterior(linear, TRUTH)[1].diagonal(dim1=1, dim2=2).sqrt()
    assert torch.allclose(following.spread, spread, rtol=0.2)


def test_the_likelihood_on_following_draws_is_unbiased_elsewhere(linear, drawn):
    individuals, following, vector = drawn
    structure = individuals.structure
    likelihood = ExactLikelihood(individuals, following)
    for shift in (0.0, 0.1, 0.3):
        population = structure.constrain_population(vector + shift)
        exact = exact_log_marginal(linear, population)
        log_mean, log_ess = likelihood.moments(population)
        error = ((individuals.num_draws / log_ess.exp() - 1) / individuals.num_draws).sqrt()
        assert abs(float((log_mean - exact).sum())) < 4 * float(error.norm())


def test_weights_remain_even_in_the_directions_of_the_means(drawn):
    """Draws that stay lose effective draws where the mean moves; draws that follow lose none."""
    individuals, following, vector = drawn
    structure = individuals.structure
    moved = vector + torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    population = structure.constrain_population(moved)
    stay = following.only(torch.zeros(len(vector), dtype=torch.bool))
    ess = [ExactLikelihood(individuals, f).moments(population)[1].exp() for f in (stay, following)]
    before = individuals.estimate.ess
    assert torch.allclose(ess[1], before, rtol=1e-3)
    assert (ess[0] < 0.9 * before).all()
    assert (ess[0] / before).median() < 0.4


def test_draws_of_an_individual_without_finite_slopes_stay(drawn):
    individuals, following, _ = drawn
    impossible = individuals.log_weights.clone()
    impossible[:, 3] = -torch.inf
    broken = follow(replace(individuals, log_weights=impossible), torch.ones(5).double())
    assert broken.directions.isfinite().all()
    others = torch.arange(len(broken.directions)) != 3
    assert torch.allclose(broken.directions[others], following.directions[others])


def test_standardised_parameters_move_with_their_scale_exactly():
    """u = phi / omega: the slopes at u are -u, and u becomes u exp(-delta) with log omega, however
    far it moves.
    """
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(20, 3, 2, generator=generator).double() + 1.5
    mean, zero = draws.mean(0), torch.zeros(3, 2).double()
    rates = -torch.eye(2).double().expand(3, 2, 2).unsqueeze(-1)
    center = torch.zeros(1).double()
    axes = torch.eye(2).double().expand(3, 2, 2)
    parts = (-mean.unsqueeze(-1), rates, mean, zero + 1, axes, zero + 1, zero[:, :1], zero[:, :1])
    parts = (*parts, torch.zeros(1, 1).double())
    following = Following(center, *parts, flows=True)
    for delta in (-1.0, 0.3):
        moved, log_det = following.moved(draws, torch.tensor([delta]).double())
        assert torch.allclose(moved, draws * math.exp(-delta))
        assert torch.allclose(log_det, torch.full((3,), -2 * delta).double())
