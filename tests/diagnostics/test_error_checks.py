"""Errors of measurement that are not what the model says; right ones pass."""

from dataclasses import replace

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import Cohort, Series
from pyro_amortized.diagnostics import residuals
from pyro_amortized.diagnostics.error_checks import error_checks
from tests.exact import TRUTH, linear_program

NUM, TIMES = 60, torch.arange(6, dtype=torch.float64).mul(0.6)
GROUP = (torch.arange(NUM) % 2).double()


def cohort_with(errors):
    """Lines with errors in units of the residual standard deviation."""
    generator = torch.Generator().manual_seed(5)
    unit = torch.randn(NUM, 2, generator=generator).double()
    intercept, slope = (TRUTH["mean"] + TRUTH["omega"] * unit).unsqueeze(-1).unbind(1)
    values = intercept + slope * TIMES + TRUTH["sigma"] * errors
    return Cohort({"y": Series(TIMES.repeat(NUM, 1), values)}, covariates={"group": GROUP})


def check_of(errors):
    cohort = cohort_with(errors)
    fit = pa.fit_population(linear_program, cohort, num_draws=200, num_starts=1, seed=1)
    (check,) = error_checks(residuals(fit, num_simulations=300, seed=1), fit.cohort)
    return check


def normal(seed):
    return torch.randn(NUM, 6, generator=torch.Generator().manual_seed(seed)).double()


def heavy_tails():
    chi2 = (normal(2) ** 2 + normal(3) ** 2) / 2
    return normal(1) / chi2.sqrt()


def by_group():
    return normal(1) * (1 + 3 * GROUP).unsqueeze(1)


def by_individual():
    return normal(1) * torch.exp(normal(4)[:, :1])


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (heavy_tails, "not normally distributed"),
        (by_group, "the size of the errors goes with group"),
        (by_individual, "errors of different size"),
    ],
)
def test_wrong_errors_are_named(errors, words):
    check = check_of(errors())
    assert check.status == "failed"
    assert words in check.words
    assert check.about == "model"


def test_right_errors_pass():
    check = check_of(normal(1))
    assert check.status == "passed"
    assert check.value > 0.05


def test_counts_are_not_tested():
    """Residuals of whole numbers are not normal under the right model."""
    cohort = cohort_with(normal(1))
    fit = pa.fit_population(linear_program, cohort, num_draws=200, num_starts=1, seed=1)
    result = residuals(fit, num_simulations=100, seed=1)
    assert error_checks(replace(result, observed=result.observed.round()), fit.cohort) == []
