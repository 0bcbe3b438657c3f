"""Expanded likelihoods that are compared with the model, beside the density at every population."""

import pytest
import quickstart
import torch

import pyro_amortized as pa
from pyro_amortized.numerics.cholesky import factored
from pyro_amortized.population.following.fitted_following import follow
from pyro_amortized.population.likelihood import expansion_check
from pyro_amortized.population.likelihood.exact_likelihood import ExactLikelihood
from pyro_amortized.population.likelihood.expanded_likelihood import ExpandedLikelihood
from pyro_amortized.population.likelihood.expansion_check import (
    CheckSettings,
    ExpandedPopulations,
    ExpansionCheck,
    ModelDifferences,
)
from pyro_amortized.runtime.random_numbers import make_generator
from pyro_amortized.sampling.student_mixture import StudentMixture

NUM = 400


@pytest.fixture(scope="module")
def one_fit():
    return pa.fit_population(quickstart.model, quickstart.cohort, seed=1, progress=False)


@pytest.fixture(scope="module")
def populations(one_fit):
    """Draws about the estimates; their log likelihoods by the model and by the expansion."""
    fit = one_fit
    following = follow(fit.individuals, fit.search.scale)
    exact = ExactLikelihood(fit.individuals, following)
    expanded = ExpandedLikelihood(fit.individuals, fit.search.scale, following=following)
    scale = factored(fit.covariance)
    first = StudentMixture.single(fit.vector, scale)
    draws = first.draw(NUM, make_generator(3))
    vectors, constrain = draws[:, 0], fit.structure.constrain_population
    with torch.no_grad():
        truth, approximate = (
            torch.stack([x.log_weights(constrain(v)).logsumexp(0) for v in vectors])
            for x in (exact, expanded)
        )
    log_ratio = -first.log_prob(draws)[:, 0]
    everywhere = torch.ones_like(approximate, dtype=torch.bool)
    candidates = ExpandedPopulations(vectors, vectors, approximate, log_ratio, everywhere)
    return fit, expanded, scale, truth, candidates


def weighted_mean(candidates, values):
    """The mean of the parameters, in standard errors of the fit, shape ``(parameter,)``."""
    return candidates.log_weights(values).softmax(0) @ candidates.varying


def error_of(candidates, values, truth):
    """Root mean square error of the log likelihood of all individuals, over the posterior."""
    weights = candidates.log_weights(truth).softmax(0)
    return float((weights * (values - truth).sum(1).square()).sum().sqrt())


def test_corrected_likelihood_has_the_posterior_of_the_model(populations):
    fit, expanded, scale, truth, candidates = populations
    assert error_of(candidates, candidates.values, truth) > 0.2  # without a correction
    check = ExpansionCheck(expanded, fit.vector, scale)
    values, error = check.corrected(candidates, 0.1, make_generator(0))
    assert 0 < error <= 0.1
    assert error_of(candidates, values, truth) < 0.1
    assert len(check.regression.points) < 250
    moved = weighted_mean(candidates, values) - weighted_mean(candidates, truth)
    assert (moved.abs() < 0.05 * fit.covariance.diagonal().sqrt()).all()


def test_all_that_matter_are_evaluated_where_the_regression_fails(populations, monkeypatch):
    fit, expanded, scale, truth, candidates = populations
    monkeypatch.setattr(
        expansion_check, "CHECK", CheckSettings(max_draw_error=0.0, max_populations=32)
    )
    check = ExpansionCheck(expanded, fit.vector, scale)
    values, error = check.corrected(candidates, 0.0, make_generator(0))
    matters = candidates.matter(truth)
    assert error == 0
    assert torch.allclose(values[matters], truth[matters], atol=1e-9)


class KnownDifferences:
    """Differences from a table of populations."""

    def __init__(self, vectors, differences, rows):
        self.vectors, self.differences, self.rows = vectors, differences, rows

    def __call__(self, vector):
        (place,) = (self.vectors == vector).all(1).nonzero()[:, 0].tolist()
        return self.differences[place, self.rows]


def test_an_expansion_without_meaning_does_not_spoil_the_others(populations, monkeypatch):
    fit, expanded, scale, truth, candidates = populations
    values, is_far = candidates.values.clone(), candidates.is_far.clone()
    values[:3, 0] += 40.0  # the largest weights by far
    is_far[:3, 1:] = False  # other individuals matter where these do not
    table = (candidates.vectors, truth - values)
    monkeypatch.setattr(
        expansion_check, "ModelDifferences", lambda _, rows: KnownDifferences(*table, rows)
    )
    check = ExpansionCheck(expanded, fit.vector, scale)
    spoilt = candidates._replace(values=values, is_far=is_far)
    corrected, error = check.corrected(spoilt, 0.1, make_generator(0))
    assert error <= 0.1
    assert error_of(candidates, corrected, truth) < 0.2


def test_individuals_that_stay_near_are_not_evaluated(populations, monkeypatch):
    fit, expanded, scale, _, candidates = populations
    rows = torch.tensor([3, 7])
    is_far = torch.zeros_like(candidates.is_far)
    is_far[::2, rows] = True
    check = ExpansionCheck(expanded, fit.vector, scale)
    values, _ = check.corrected(candidates._replace(is_far=is_far), 0.1, make_generator(0))
    changed = (values != candidates.values).any(0)
    assert changed.nonzero()[:, 0].tolist() == rows.tolist()

    nobody = candidates._replace(is_far=torch.zeros_like(is_far))
    values, error = check.corrected(nobody, 0.1, make_generator(0))
    assert error == 0
    assert values is candidates.values


def test_a_part_of_the_draws_gives_the_difference_of_all(populations, monkeypatch):
    _, expanded, _, truth, candidates = populations
    differences = ModelDifferences(expanded, torch.arange(12))
    near = (truth - candidates.values).sum(1).abs().argsort()[NUM // 2]
    expected = (truth - candidates.values)[near]
    assert (differences(candidates.vectors[near]) - expected).sum().abs() < 0.02
    monkeypatch.setattr(expansion_check, "CHECK", CheckSettings(max_draw_error=0.0))
    assert torch.allclose(differences(candidates.vectors[near]), expected, atol=1e-9)
