"""Standard errors by the scores where Monte Carlo error hides the curvature."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.numerics.laplace import Curvature
from pyro_amortized.population.likelihood import likelihood_choice
from pyro_amortized.population.likelihood.likelihood_choice import LikelihoodChoiceSettings
from pyro_amortized.population.results import fit_curvature
from pyro_amortized.population.results.fit_curvature import with_scores
from pyro_amortized.population.results.fit_message import cut_gradients
from pyro_amortized.population.search.estimation_settings import EstimationSettings
from tests.exact import exact_fit, linear_cohort, linear_program


def parts(noise):
    """A search, a likelihood with scores of four parameters, of which the last is not estimated,
    and a part of the information of the second one that is Monte Carlo error.
    """
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(400, 4, generator=generator, dtype=torch.float64)
    mixing = torch.tensor([[1, 0, 0, 0], [2, 5, 0, 0], [0, 0, 0.1, 0], [0, 0, 0, 1.0]]).double()
    scores = scores @ mixing
    errors = torch.zeros(4, 4).double()
    errors[1, 1] = noise / (scores.T @ scores).inverse()[1, 1]
    following = SimpleNamespace(scores=scores, score_covariance=errors)
    scale = torch.tensor([1.0, 2.0, 0.5, 1.0]).double()
    search = SimpleNamespace(scale=scale, criterion="maximum likelihood")
    return search, SimpleNamespace(following=following)


FREE = torch.tensor([True, True, True, False])
NOTHING = Curvature(torch.eye(4).double(), False, torch.zeros(0, 4).double())


def test_little_error_changes_nothing():
    assert with_scores(*parts(0.05), NOTHING, FREE) is NOTHING


def test_the_error_is_taken_off_the_information():
    search, likelihood = parts(0.4)
    found = with_scores(search, likelihood, NOTHING, FREE)
    assert found.by_scores
    assert found.is_maximum
    following = likelihood.following
    information = (following.scores.T @ following.scores - following.score_covariance)[:3, :3]
    assert torch.allclose(found.covariance[:3, :3], information.inverse())
    assert found.covariance[3].isnan().all()


@pytest.mark.parametrize(("direction", "is_flat"), [(1, True), (0, False)])
def test_a_flat_direction_is_one_that_the_scores_do_not_determine_either(direction, is_flat):
    """Scores that are Monte Carlo error alone say nothing."""
    search, likelihood = parts(0.95)
    curvature = flat_curvature(direction, likelihood, search)
    found = with_scores(search, likelihood, curvature, FREE)
    assert (found is curvature) == is_flat
    assert found.by_scores == (not is_flat)


def flat_curvature(j, likelihood, search):
    """A curvature that is flat in the direction of the information's inverse, or in another one."""
    scores = likelihood.following.scores[:, :3]
    covariance = (scores.T @ scores).inverse()
    # The direction in which only one combination of the scores changes.
    axis = covariance[:, j] if j == 1 else torch.tensor([0.0, 0.0, 1.0]).double()
    flat = torch.zeros(1, 4).double()
    flat[0, :3] = axis / search.scale[:3]
    return NOTHING._replace(flat=flat)


def test_what_the_scores_leave_flat_is_not_determined():
    """Two parameters of which the scores see the sum alone."""
    search, likelihood = parts(0.4)
    scores, errors = likelihood.following.scores, likelihood.following.score_covariance
    scores[:, 2] = scores[:, 0] + 1e-6 * scores[:, 2]
    errors[1, 1] = 0.4 / (scores.T @ scores)[:3, :3].inverse()[1, 1]
    found = with_scores(search, likelihood, NOTHING, FREE)
    assert found.by_scores
    assert not found.is_maximum
    assert found.covariance.diagonal().isnan().tolist() == [True, False, True, True]
    scale = search.scale
    (direction,) = found.flat * scale / (found.flat * scale).abs().max()
    assert direction.abs().tolist() == pytest.approx([1.0, 0.0, 1.0, 0.0], abs=1e-3)
    assert float(direction[0] * direction[2]) < 0


@pytest.mark.parametrize(("is_cut", "named"), [(True, ["rate"]), (False, [])])
def test_a_large_third_order_is_no_cut_gradient(is_cut, named):
    """Differences over a thousandth of a large step have a slope of one, which is no mistake."""

    def objective(x):
        return 1e6 * x[0] ** 3 + (2.0 * x[0].detach() if is_cut else 0.0) - x[1] ** 2

    vector = torch.zeros(2).double()
    ascent = SimpleNamespace(
        likelihood=None,
        optimum=SimpleNamespace(vector=vector),
        held=torch.zeros(2, dtype=torch.bool),
    )
    structure = SimpleNamespace(population_names=["rate", "other"])
    search = SimpleNamespace(
        objective=lambda likelihood: objective, scale=torch.ones(2).double(), structure=structure
    )
    assert cut_gradients(SimpleNamespace(ascent=ascent, search=search)) == named


def test_few_individuals_keep_the_curvature():
    search, likelihood = parts(0.4)
    few = SimpleNamespace(
        scores=likelihood.following.scores[:29],
        score_covariance=likelihood.following.score_covariance,
    )
    assert with_scores(search, SimpleNamespace(following=few), NOTHING, FREE) is NOTHING


def test_standard_errors_by_scores_are_about_the_exact_ones(monkeypatch):
    monkeypatch.setattr(
        fit_curvature, "ESTIMATION", replace(EstimationSettings(), max_noise_share=0)
    )
    cohort = linear_cohort(150, seed=3)
    vector, _, covariance = exact_fit(cohort)
    fit = pa.fit_population(linear_program, cohort, num_draws=100, seed=1)
    assert "those of the scores" in fit.message
    errors = covariance.diagonal().sqrt()
    assert float(((fit.vector - vector) / errors).abs().max()) < 0.05
    assert float((fit.covariance.diagonal().sqrt() / errors - 1).abs().max()) < 0.25
    assert fit.standard_error_errors.isnan().all()


def test_the_scores_are_those_of_all_individuals(monkeypatch):
    """The curvature of a large cohort is that of some individuals; the standard errors that their
    scores alone would give are those of a cohort of their size.
    """
    choice = LikelihoodChoiceSettings(max_exact=0, max_evaluated=0, min_curved=100)
    monkeypatch.setattr(likelihood_choice, "CHOICE", choice)
    monkeypatch.setattr(fit_curvature, "ESTIMATION", EstimationSettings(max_noise_share=0.0))
    cohort = linear_cohort(400, seed=3)
    _, _, covariance = exact_fit(cohort)
    fit = pa.fit_population(linear_program, cohort, num_draws=100, seed=1, progress=False)
    assert "those of the scores" in fit.message
    ratio = (fit.covariance.diagonal() / covariance.diagonal()).sqrt()
    assert float((ratio - 1).abs().max()) < 0.2  # that of 100 individuals is 2
