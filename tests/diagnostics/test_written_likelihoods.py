"""Likelihood ratios of alternatives to the data are those of the closed form."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics.written_alternatives import written_alternatives
from pyro_amortized.diagnostics.written_likelihoods import (
    compare_alternatives,
    exact_gains,
    used_covariates,
)
from tests.diagnostics.linear_weights import (
    exact_log_likelihood,
    program,
    right_cohort,
)


@pytest.fixture(scope="module")
def fit():
    return pa.fit_population(program, right_cohort(1), seed=1)


@pytest.fixture(scope="module")
def compared(fit):
    alternatives = list(written_alternatives(fit.cohort, ["weight"], ["y"]))
    with torch.no_grad():
        return compare_alternatives(fit, fit.cohort, alternatives)


def test_covariates_that_change_the_density_are_known(fit):
    with torch.no_grad():
        assert used_covariates(fit, fit.cohort) == ["weight"]


def test_gains_are_those_of_the_closed_form(fit, compared):
    before = exact_log_likelihood(fit.cohort, fit.estimates)
    kinds = set()
    for index, alternative in enumerate(compared.alternatives):
        exact = exact_log_likelihood(alternative.cohort, fit.estimates) - before[alternative.rows]
        gain = compared.gain(index)
        # Normal approximations are exact here; what is far less likely is not improved to the end.
        near = exact > -5
        torch.testing.assert_close(gain[near], exact[near], atol=0.02, rtol=0)
        assert bool((gain[~near] < -4.9).all())
        kinds.add(alternative.kind)
    assert kinds == {"the unit of weight", "columns", "samples", "order", "exchanged covariates"}


def test_gains_by_importance_sampling_are_those_of_the_closed_form(fit, compared):
    index = next(i for i, a in enumerate(compared.alternatives) if a.kind == "columns")
    alternative, places = compared.alternatives[index], torch.arange(5)
    exact = exact_log_likelihood(alternative.cohort[places], fit.estimates)
    exact -= exact_log_likelihood(fit.cohort, fit.estimates)[alternative.rows[places]]
    gains = exact_gains(fit, alternative, places, seed=1)
    torch.testing.assert_close(gains, exact, atol=0.15, rtol=0)


def test_scores_are_those_of_the_closed_form(fit, compared):
    vector = fit.vector.clone().requires_grad_()
    population = fit.structure.constrain_population(vector)
    exact = torch.stack(
        [
            torch.autograd.grad(x, vector, retain_graph=True)[0]
            for x in exact_log_likelihood(fit.cohort, population)
        ]
    )
    torch.testing.assert_close(compared.written.scores, exact, atol=2e-2, rtol=1e-2)
