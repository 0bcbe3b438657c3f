"""Scores of individuals on draws that follow the population, against quadrature."""

import torch

import pyro_amortized as pa
from pyro_amortized.cohort import Cohort, Series
from pyro_amortized.population.fitted_following import follow
from tests.outcome_models import poisson_counts

NUM, COUNT = 3000, 1.0


def exact_scores(mean, log_omega):
    """Derivatives of the log likelihood of one individual, by a fine grid."""
    z = torch.linspace(-9.0, 9.0, 4001, dtype=torch.float64)

    def log_likelihood(vector):
        u = vector[0] + vector[1].exp() * z
        return (COUNT * u - u.exp() - z.square() / 2).logsumexp(0)

    vector = torch.tensor([mean, log_omega], dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(log_likelihood(vector), vector)[0]


def test_scores_have_no_bias_of_first_order():
    """Thousands of individuals with the same count and 100 draws each: the mean of their scores is
    the exact one, and without the correction it is many errors away.
    """
    times = torch.zeros(NUM, 1).double()
    cohort = Cohort({"y": Series(times, times + COUNT)})
    population = {"mean": torch.tensor(0.3), "omega": torch.tensor(0.8)}
    individuals = pa.sample_individuals(poisson_counts, cohort, population, num_draws=100, seed=1)
    following = follow(individuals, torch.ones(2).double())
    exact = exact_scores(0.3, torch.tensor(0.8).double().log())
    error = following.scores.std(0) / NUM**0.5
    assert ((following.scores.mean(0) - exact).abs() < 4 * error).all()
    uncorrected = following.scores + following.bias
    assert float(((uncorrected.mean(0) - exact).abs() / error).max()) > 8


def test_the_likelihood_on_moved_draws_has_the_corrected_slope():
    times = torch.zeros(20, 1).double()
    cohort = Cohort({"y": Series(times, times + COUNT)})
    population = {"mean": torch.tensor(0.3), "omega": torch.tensor(0.8)}
    individuals = pa.sample_individuals(poisson_counts, cohort, population, num_draws=100, seed=2)
    following = follow(individuals, torch.ones(2).double())
    vector = following.center.clone().requires_grad_()
    excess = following.excess(vector)
    assert not bool(excess.any())
    slope = torch.autograd.grad(excess.sum(), vector)[0]
    assert torch.allclose(slope, following.bias.sum(0))
