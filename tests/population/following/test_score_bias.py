"""Scores and information of individuals on draws that follow the population, against quadrature."""

import math

import torch

import pyro_amortized as pa
from pyro_amortized.cohort import Cohort, Series
from pyro_amortized.numerics.maximization import observed_information
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.likelihood.exact_likelihood import ExactLikelihood
from pyro_amortized.population.search.information_check import without_bias
from tests.outcome_models import poisson_counts

NUM, COUNT = 3000, 1.0


CENTER = torch.tensor([0.3, math.log(0.8)], dtype=torch.float64)


def log_likelihood(vector):
    """That of one individual, by a fine grid."""
    z = torch.linspace(-9.0, 9.0, 4001, dtype=torch.float64)
    u = vector[0] + vector[1].exp() * z
    return (COUNT * u - u.exp() - z.square() / 2).logsumexp(0)


def sampled(num, seed):
    """Individuals with the same count, and 100 draws of each."""
    times = torch.zeros(num, 1).double()
    cohort = Cohort({"y": Series(times, times + COUNT)})
    population = {"mean": torch.tensor(0.3), "omega": torch.tensor(0.8)}
    return pa.sample_individuals(poisson_counts, cohort, population, num_draws=100, seed=seed)


def test_scores_have_no_bias_of_first_order():
    """Thousands of individuals with the same count and 100 draws each: the mean of their scores is
    the exact one, and without the correction it is many errors away. Differences of the density
    in place of its gradient would leave 2 to 3.5 errors.
    """
    following = follow(sampled(NUM, 1), torch.ones(2).double())
    exact = torch.autograd.functional.jacobian(log_likelihood, CENTER)
    error = following.scores.std(0) / NUM**0.5
    assert ((following.scores.mean(0) - exact).abs() < 2 * error).all()
    uncorrected = following.scores + following.bias
    assert float(((uncorrected.mean(0) - exact).abs() / error).max()) > 4


def test_the_likelihood_on_moved_draws_has_the_corrected_slope():
    following = follow(sampled(20, 2), torch.ones(2).double())
    vector = following.center.clone().requires_grad_()
    excess = following.excess(vector)
    assert not bool(excess.any())
    slope = torch.autograd.grad(excess.sum(), vector)[0]
    assert torch.allclose(slope, following.bias.sum(0))


def test_the_information_has_no_bias_of_first_order():
    """The moves were fitted to the same draws: the variance of the slopes, which the information
    contains, is too small without the correction.
    """
    individuals = sampled(NUM, 1)
    following = follow(individuals, torch.ones(2).double())
    constrain, steps = individuals.structure.constrain_population, torch.full((2,), 1e-3).double()
    information, bias = [], []
    for rows in torch.arange(NUM).split(100):
        likelihood = ExactLikelihood(individuals.take(rows), following.take(rows))
        total = observed_information(lambda x, f=likelihood: f(constrain(x)).sum(), CENTER, steps)
        information.append(total / 100)
        bias.append(following.information_bias[rows].mean(0))
    on_draws, bias = torch.stack(information), torch.stack(bias)
    exact = -torch.autograd.functional.hessian(log_likelihood, CENTER)
    error = on_draws.std(0) / len(on_draws) ** 0.5
    assert float(((on_draws.mean(0) - exact) / error)[1, 1]) > 4.5
    assert (((on_draws - bias).mean(0) - exact).abs() < 3 * error).all()


def test_at_most_half_of_the_information_is_taken_off():
    information = torch.tensor([[4.0, 1.0], [1.0, 2.0]]).double()
    small = torch.tensor([[0.2, 0.1], [0.1, 0.3]]).double()
    assert torch.allclose(without_bias(information, small), information - small)
    halved = without_bias(information, 3.0 * information)
    assert torch.allclose(halved, information / 2)
