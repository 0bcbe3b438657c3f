"""Control variates against integrals that are known exactly."""

import math

import pytest
import torch

from pyro_amortized.sampling.control_variates import controlled_estimate, remaining_terms
from pyro_amortized.sampling.importance_weights import importance_estimate, log_mean

NUM, DIM = 400, 2


def student_draws(num_draws, num=NUM, dim=DIM, seed=0):
    """Draws of a Student-t distribution with 5 degrees of freedom, and their log density."""
    t = torch.distributions.StudentT(torch.tensor(5.0, dtype=torch.float64))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        draws = t.sample((num_draws, num, dim))
    return draws, t.log_prob(draws).sum(-1)


def log_gamma(draws, shape=4.0):
    """Log density of the logarithm of a gamma variable, which is skewed; its integral is one."""
    log_prob = shape * (draws + math.log(shape)) - shape * draws.exp() - math.lgamma(shape)
    return log_prob.sum(-1)


def test_nothing_remains_of_the_variance_for_a_normal_target():
    draws, log_proposal = student_draws(400)
    scale = torch.tensor([0.5, 0.8], dtype=torch.float64)
    target = torch.distributions.Normal(0.3, scale).log_prob(draws).sum(-1)
    log_weights = target - log_proposal
    plain, controlled = (
        importance_estimate(log_weights),
        controlled_estimate(draws, log_proposal, log_weights).estimate,
    )
    assert float(controlled.mc_error.median()) < 0.02 * float(plain.mc_error.median())
    assert torch.equal(controlled.ess, plain.ess)
    assert torch.equal(controlled.pareto_k, plain.pareto_k)


@pytest.mark.parametrize("num_draws", [100, 400])
def test_the_error_of_a_skewed_target_is_smaller_and_right(num_draws):
    """The targets of all individuals are the same; their estimates scatter as their errors say."""
    draws, log_proposal = student_draws(num_draws)
    log_weights = log_gamma(draws) - log_proposal
    plain = importance_estimate(log_weights)
    controlled = controlled_estimate(draws, log_proposal, log_weights).estimate
    assert float(controlled.mc_error.mean()) < 0.6 * float(plain.mc_error.mean())
    z = controlled.log_mean / controlled.mc_error
    assert abs(float(z.mean())) < 5 / math.sqrt(NUM)
    assert 0.8 < float(z.std()) < 1.4
    mean_error = float(controlled.mc_error.pow(2).sum().sqrt()) / NUM
    assert abs(float(controlled.log_mean.mean())) < 4 * mean_error + float(
        controlled.mc_error.pow(2).mean()
    )


def test_two_modes_are_not_made_worse():
    draws, log_proposal = student_draws(300)
    modes = torch.distributions.Normal(torch.tensor([[-1.5], [1.5]], dtype=torch.float64), 0.6)
    log_weights = (
        modes.log_prob(draws.unsqueeze(-2)).sum(-1).logsumexp(-1) - math.log(2) - log_proposal
    )
    plain = importance_estimate(log_weights)
    controlled = controlled_estimate(draws, log_proposal, log_weights).estimate
    assert float(controlled.mc_error.mean()) < 1.2 * float(plain.mc_error.mean())
    means = controlled.log_mean.exp()
    error = float((means * controlled.mc_error).pow(2).mean().sqrt()) / math.sqrt(NUM)
    assert float(means.mean()) == pytest.approx(1.0, abs=4 * error)


def test_without_enough_draws_it_is_the_mean_weight():
    draws, log_proposal = student_draws(30, num=3)
    log_weights = log_gamma(draws) - log_proposal
    log_weights[:, 1] = -math.inf
    plain = importance_estimate(log_weights)
    controlled = controlled_estimate(draws, log_proposal, log_weights).estimate
    assert torch.equal(controlled.log_mean[1], plain.log_mean[1])
    assert controlled.mc_error[1] == math.inf
    few = controlled_estimate(draws[:8], log_proposal[:8], log_weights[:8]).estimate
    assert torch.equal(few.log_mean, importance_estimate(log_weights[:8]).log_mean)


def test_the_estimate_is_the_mean_of_the_weights_times_the_factors():
    draws, log_proposal = student_draws(400)
    log_weights = log_gamma(draws) - log_proposal
    result = controlled_estimate(draws, log_proposal, log_weights)
    assert torch.allclose(log_mean(log_weights, result.factors), result.estimate.log_mean)
    few = controlled_estimate(draws[:8], log_proposal[:8], log_weights[:8])
    assert (few.factors == 1).all()


@pytest.mark.parametrize("power", [1, 2])
def test_the_factors_reduce_the_errors_of_moments_as_it_is_said(power):
    """Moments of a skewed target, times its integral: the same factors serve them all."""
    draws, log_proposal = student_draws(400)
    log_weights = log_gamma(draws) - log_proposal
    factors = controlled_estimate(draws, log_proposal, log_weights).factors
    terms = log_weights.exp().unsqueeze(-1) * draws**power / len(draws)
    exact = torch.special.polygamma(power - 1, torch.tensor(4.0)) - (power == 1) * math.log(4.0)
    if power == 2:
        exact = exact + (torch.special.digamma(torch.tensor(4.0)) - math.log(4.0)) ** 2
    plain = terms.sum(0) - exact
    controlled = (factors.unsqueeze(-1) * terms).sum(0) - exact
    assert float(controlled.std()) < 0.6 * float(plain.std())
    assert abs(float(controlled.mean())) < 4 * float(controlled.std()) / math.sqrt(2 * NUM)
    centred = terms - log_weights.exp().unsqueeze(-1) * exact / len(draws)
    left = remaining_terms(draws, log_proposal, log_weights, factors, centred)
    expected = left.square().sum(0).mean().sqrt()
    assert 0.8 < float(controlled.std() / expected) < 1.4
