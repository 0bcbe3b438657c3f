"""The likelihood of a large cohort to second order, and fits with it, against closed forms."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.model import read_structure
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.likelihood import likelihood_choice
from pyro_amortized.population.likelihood.large_cohorts.individual_blocks import summary_by_blocks
from pyro_amortized.population.likelihood.likelihood_choice import (
    LikelihoodChoiceSettings,
    calibrated_weights,
    differentiable_likelihood,
)
from pyro_amortized.population.likelihood.quadratic_likelihood import QuadraticLikelihood
from tests.exact import TRUTH, exact_fit, exact_log_marginal, linear_cohort, linear_program


@pytest.fixture
def always_quadratic(monkeypatch):
    """Every cohort counts as a large one."""
    settings = LikelihoodChoiceSettings(max_exact=0, max_evaluated=0)
    monkeypatch.setattr(likelihood_choice, "CHOICE", settings)


def quadratic_likelihood(individuals):
    """The quadratic likelihood on some draws."""
    scale = torch.ones(len(individuals.structure.population_names)).double()
    return QuadraticLikelihood(summary_by_blocks(individuals, scale), scale)


def exact_scores(cohort, population):
    """Gradients of the exact log likelihoods in the unconstrained population."""
    structure = read_structure(linear_program, cohort)
    vector = structure.unconstrain_population(population)

    def exact(x):
        return exact_log_marginal(cohort, structure.constrain_population(x))

    return structure, vector, torch.autograd.functional.jacobian(exact, vector)


def test_its_scores_are_those_of_the_closed_form(linear):
    structure, vector, exact = exact_scores(linear, TRUTH)
    individuals = pa.sample_individuals(linear_program, linear, TRUTH, num_draws=200, seed=1)
    likelihood = quadratic_likelihood(individuals)
    x = vector.clone().requires_grad_()
    total = likelihood(structure.constrain_population(x))
    rows = [torch.autograd.grad(y, x, retain_graph=True)[0] for y in total]
    assert torch.allclose(torch.stack(rows), exact, atol=1e-3)
    assert 0 < likelihood.noise < 1e-3


def test_its_curvature_is_that_of_the_outer_products(linear):
    structure, vector, exact = exact_scores(linear, TRUTH)
    individuals = pa.sample_individuals(linear_program, linear, TRUTH, num_draws=200, seed=1)
    likelihood = quadratic_likelihood(individuals)
    hessian = torch.autograd.functional.hessian(
        lambda x: likelihood(structure.constrain_population(x)).sum(), vector
    )
    assert torch.allclose(hessian, -exact.T @ exact, rtol=1e-2, atol=0.1)


def test_large_cohorts_have_it(linear, always_quadratic):
    individuals = pa.sample_individuals(linear_program, linear, TRUTH, num_draws=50, seed=1)
    likelihood = differentiable_likelihood(individuals, torch.ones(5).double())
    assert isinstance(likelihood, QuadraticLikelihood)


def test_a_fit_ends_at_the_exact_maximum(always_quadratic):
    cohort = linear_cohort(300, seed=3)
    vector, _, covariance = exact_fit(cohort)
    errors = covariance.diagonal().sqrt()
    fit = pa.fit_population(linear_program, cohort, num_draws=200, seed=1)
    assert fit.converged, fit.message
    relative = (fit.vector - vector) / errors
    assert float(relative.abs().max()) < 0.05
    ratio = fit.covariance.diagonal().sqrt() / errors
    assert float((ratio - 1).abs().max()) < 0.02


def test_few_values_are_not_quadratic(linear):
    individuals = pa.sample_individuals(linear_program, linear, TRUTH, num_draws=50, seed=1)
    scale = torch.ones(5).double()
    assert not differentiable_likelihood(individuals, scale).is_expanded
    assert follow(individuals, scale).scores.shape == (len(linear), 5)


def test_weights_of_some_individuals_give_the_totals_of_all():
    """The number of individuals, their scores, and the squares of these."""
    cohort = linear_cohort(400, seed=2)
    scores = exact_scores(cohort, TRUTH)[2]
    rows = torch.randperm(400, generator=torch.Generator().manual_seed(1))[:100]
    weights = calibrated_weights(scores, rows)
    assert torch.allclose(weights.sum(), torch.tensor(400.0).double())
    for power in (1, 2):
        total = (weights.unsqueeze(1) * scores[rows] ** power).sum(0)
        assert torch.allclose(total, (scores**power).sum(0))
