"""Fits of many individuals in blocks: against the closed form, and in several processes."""

from types import SimpleNamespace

import joblib
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.population.likelihood import likelihood_choice
from pyro_amortized.population.likelihood.large_cohorts import individual_blocks
from pyro_amortized.population.likelihood.large_cohorts.individual_blocks import (
    BlockSettings,
    Drawer,
    DrawRequest,
    draws_by_blocks,
    summarized_draws,
)
from pyro_amortized.population.likelihood.large_cohorts.summarized_draws import block_summary
from pyro_amortized.population.likelihood.likelihood_choice import LikelihoodChoiceSettings
from pyro_amortized.population.search.draw_numbers import result_draws
from pyro_amortized.sampling import minor_modes
from pyro_amortized.sampling.minor_modes import SearchEffort
from pyro_amortized.sampling.refinement_settings import NO_CHAINS
from tests.exact import TRUTH, exact_fit, exact_log_marginal, linear_cohort, linear_program

SETTINGS = BlockSettings(max_rows=4_000)


@pytest.fixture
def small_blocks(monkeypatch):
    """Cohorts from 100 individuals on are fitted in blocks of 4,000 draws; few are searched for
    modes.
    """
    monkeypatch.setattr(minor_modes, "EFFORT", SearchEffort(max_values=1_000_000))
    monkeypatch.setattr(likelihood_choice, "CHOICE", LikelihoodChoiceSettings(min_individuals=100))
    monkeypatch.setattr(individual_blocks, "BLOCKS", SETTINGS)


def request_and_drawer(cohort, num_draws=50):
    structure = pa.read_structure(linear_program, cohort)
    vector = structure.unconstrain_population(TRUTH)
    effort = NO_CHAINS._replace(search_modes=False)
    return Drawer(structure, None, torch.ones(5).double()), DrawRequest(vector, num_draws, effort)


def generator():
    return torch.Generator().manual_seed(1)


def test_what_is_kept_is_that_of_the_same_draws(small_blocks):
    cohort = linear_cohort(130, seed=5)
    drawer, request = request_and_drawer(cohort)
    kept = summarized_draws(drawer, cohort, request, generator())
    draws = draws_by_blocks(drawer, cohort, request, generator())
    whole = block_summary(draws, drawer.scale)
    same = (kept.summary.estimate.log_mean - whole.estimate.log_mean).abs() < 1e-9
    assert int(same.sum()) > 100  # those that the last steps did not draw again
    scores = (kept.summary.following.scores - whole.following.scores)[same]
    assert float(scores.abs().max()) < 1e-9
    exact = exact_log_marginal(cohort, TRUTH)
    errors = draws.marginal_estimate.mc_error.clamp(min=1e-3)
    assert float(((draws.marginal_estimate.log_mean - exact) / errors).abs().max()) < 6


def test_a_block_has_a_limited_number_of_draws_and_values(monkeypatch, small_blocks):
    """The memory of a round is bounded by what is evaluated at once, not by the cohort."""
    sizes, summarize = [], individual_blocks.block_summary

    def recorded(individuals, scale):
        sizes.append(individuals.log_weights.numel())
        return summarize(individuals, scale)

    monkeypatch.setattr(individual_blocks, "block_summary", recorded)
    cohort = linear_cohort(500, seed=5)
    drawer, request = request_and_drawer(cohort)
    summarized_draws(drawer, cohort, request, generator())
    assert len(sizes) == 7
    assert max(sizes) <= SETTINGS.max_rows


def test_long_series_have_small_blocks():
    long, short = (linear_cohort(10, width=w, missing=0.0) for w in (800, 8))
    assert BlockSettings().size(short, 100) == 1_000
    assert BlockSettings().size(long, 100) <= 100


@pytest.mark.slow
def test_a_fit_in_blocks_ends_at_the_exact_maximum(small_blocks):
    cohort = linear_cohort(2_000, seed=3)
    vector, _, covariance = exact_fit(cohort)
    errors = covariance.diagonal().sqrt()
    fit = pa.fit_population(linear_program, cohort, num_draws=50, seed=1, progress=False)
    assert fit.converged, fit.message
    assert float(((fit.vector - vector) / errors).abs().max()) < 0.05
    ratio = fit.covariance.diagonal().sqrt() / errors
    assert float((ratio - 1).abs().max()) < 0.03
    assert float((fit.monte_carlo_errors / errors).max()) < 0.05
    exact = exact_log_marginal(cohort, fit.estimates).sum()
    assert abs(fit.marginal.total - float(exact)) < 4 * fit.marginal.total_mc_error


@pytest.mark.slow
def test_blocks_with_as_many_draws_as_the_precision_needs(small_blocks):
    """A round counts the draws that the Monte Carlo errors need, from the scores of all blocks."""
    cohort = linear_cohort(400, seed=4)
    vector, log_marginal, covariance = exact_fit(cohort)
    errors = covariance.diagonal().sqrt()
    fit = pa.fit_population(linear_program, cohort, seed=1, progress=False)
    assert fit.converged, fit.message
    assert float(((fit.vector - vector) / errors).abs().max()) < 0.05
    ratio = fit.covariance.diagonal().sqrt() / errors
    assert float((ratio - 1).abs().max()) < 0.05
    assert abs(fit.marginal.total - float(log_marginal)) < 4 * fit.marginal.total_mc_error + 0.01


@pytest.mark.slow
def test_processes_give_the_same_numbers(small_blocks):
    cohort = linear_cohort(150, seed=5)

    def fitted():
        return pa.fit_population(linear_program, cohort, num_draws=50, seed=1, progress=False)

    alone = fitted()
    with joblib.parallel_config(backend="loky", n_jobs=2):
        together = fitted()
    assert torch.equal(alone.vector, together.vector)
    assert torch.equal(alone.individuals.unconstrained, together.individuals.unconstrained)
    assert torch.equal(alone.marginal.log_likelihood, together.marginal.log_likelihood)


def test_the_result_has_draws_for_control_variates():
    """Within limits of what a cohort and an individual get."""

    def number(num, names=("a", "b", "c")):
        structure = SimpleNamespace(estimator="corrected", latent_names=names)
        return result_draws(structure, range(num))

    assert number(1_000) == 200  # not a large cohort: its rounds may have fewer
    assert number(10_000) == 150
    assert number(10_000, ("a", "b")) == 90
    assert number(10_000, tuple("abcdefgh")) == 300
    assert number(200_000) == 100
