"""The likelihood with expanded observations against the exact linear Gaussian model."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.likelihood import expanded_likelihood, likelihood_choice
from pyro_amortized.population.likelihood.exact_likelihood import ExactLikelihood
from pyro_amortized.population.likelihood.expanded_likelihood import (
    ExpandedLikelihood,
    ExpansionSettings,
)
from pyro_amortized.population.likelihood.likelihood_choice import LikelihoodChoiceSettings
from pyro_amortized.population.search import starting_values
from pyro_amortized.population.search.starting_values import StartSettings
from tests.exact import exact_fit, linear_cohort, linear_program


def test_expansion_has_value_slope_and_curvature_of_the_exact_likelihood(fit):
    structure = fit.structure
    following = follow(fit.individuals, fit.search.scale)
    exact = ExactLikelihood(fit.individuals, following)
    expanded = ExpandedLikelihood(fit.individuals, fit.search.scale, following=following)

    def results(likelihood):
        def value(z):
            return likelihood(structure.constrain_population(z)).sum()

        hessian = torch.autograd.functional.hessian(value, fit.vector)
        return value(fit.vector), torch.autograd.functional.jacobian(value, fit.vector), hessian

    for approximate, expected in zip(results(expanded), results(exact), strict=True):
        assert torch.allclose(approximate, expected, rtol=1e-4, atol=1e-3)
    moved = fit.vector + 0.05
    near = [x(structure.constrain_population(moved)).sum() for x in (expanded, exact)]
    assert abs(float(near[0] - near[1])) < 0.02


def test_parts_of_the_individuals_make_no_difference(fit):
    undivided = ExpandedLikelihood(fit.individuals, fit.search.scale)
    settings = ExpansionSettings(max_rows=7000)
    parts = ExpandedLikelihood(fit.individuals, fit.search.scale, settings=settings)
    assert len(parts.parts) == 6

    def gradient(likelihood):
        z = fit.vector.clone().requires_grad_()
        likelihood(fit.structure.constrain_population(z)).sum().backward()
        return z.grad

    assert torch.allclose(gradient(undivided), gradient(parts))
    # Negligible draws have no weight in the likelihood.
    weights = (undivided.log_weights(fit.estimates).exp(), fit.individuals.log_weights.exp())
    assert torch.allclose(*weights, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The missing values")
def test_many_individuals_find_the_exact_maximum(linear_guide, monkeypatch):
    """With expanded likelihoods, starts on some of the individuals, then more, several parts."""
    monkeypatch.setattr(likelihood_choice, "CHOICE", LikelihoodChoiceSettings(max_exact=1000))
    monkeypatch.setattr(expanded_likelihood, "EXPANSION", ExpansionSettings(max_rows=50_000))
    start = StartSettings(more_individuals=(100,))
    monkeypatch.setattr(starting_values, "START", start)
    cohort = linear_cohort(num=400, seed=5)
    vector, value, covariance = exact_fit(cohort)
    se = covariance.diagonal().sqrt()
    fit = pa.fit_population(linear_program, cohort, guide=linear_guide, seed=1)
    assert fit.converged, fit.message
    assert fit.individuals.num_draws == 200
    assert ((fit.vector - vector).abs() < 0.05 * se).all()
    assert ((fit.covariance.diagonal().sqrt() / se - 1).abs() < 0.05).all()
    assert abs(fit.minus2ll + 2 * value) < 4 * fit.marginal.minus2ll_mc_error + 0.1
