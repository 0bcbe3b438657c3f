"""Individuals that move the estimates, beside fits without them."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics.case_influence import case_influence, case_influence_checks
from pyro_amortized.diagnostics.fit_checks import standard_error_checks
from tests.exact import exact_fit, linear_cohort, linear_program


@pytest.fixture(scope="module")
def with_outlier():
    """The first individual has values that no other one has."""
    cohort = linear_cohort(num=30, width=6, missing=0.0, seed=2)
    values = cohort["y"].values.clone()
    values[0] += 12.0
    cohort = cohort.with_values({"y": values})
    return pa.fit_population(linear_program, cohort, num_draws=200, seed=1)


def test_the_estimates_without_an_individual_are_those_of_a_fit(fit):
    """In the linear Gaussian model, beside exact fits without single individuals."""
    influence = case_influence(fit)
    errors = fit.covariance.diagonal().sqrt()
    for i in (0, 7):
        rest = [j for j in range(len(fit.cohort)) if j != i]
        exact = exact_fit(fit.cohort[rest])[0]
        assert ((influence.without[i] - exact) / errors).abs().max() < 0.12
    first = influence.table()["individual"].iloc[0]
    assert first == fit.cohort.ids[int(influence.moves.abs().amax(1).argmax())]


def test_an_individual_that_moves_an_estimate_is_named(with_outlier, fit):
    (check,) = case_influence_checks(with_outlier)
    assert check.status == "look"
    assert check.words.startswith("Individual 1 moves omega[0] by +")
    (check,) = case_influence_checks(fit)
    assert check.status == "passed"
    largest = case_influence(fit).moves.abs().amax(1)
    listed = [label for label, x in zip(fit.cohort.ids, largest, strict=True) if x > 1]
    assert all(f"{label} (" in check.words for label in listed[:5])
    assert ("none by more than 1" in check.words) == (not listed)


def test_standard_errors_that_differ_are_named(with_outlier, fit):
    (check,) = standard_error_checks(with_outlier)
    assert check.status == "look"
    assert "omega[0]" in check.words
    (check,) = standard_error_checks(fit)
    assert check.status == "passed"
    few = pa.fit_population(linear_program, linear_cohort(num=10, seed=1), num_draws=100, seed=1)
    assert standard_error_checks(few) == []
    assert torch.isfinite(few.vector).all()
