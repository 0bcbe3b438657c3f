"""What is missing: at random, below a limit, and after high values."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import Cohort, Series
from pyro_amortized.diagnostics import residuals
from pyro_amortized.diagnostics.measurements.missingness_checks import (
    missingness_checks,
    planned_but_missing,
)
from pyro_amortized.model import read_structure
from tests.exact import TRUTH, linear_program

TIMES = torch.arange(6, dtype=torch.float64).mul(0.6).repeat(60, 1)


def whole(seed):
    empty = Cohort({"y": Series(TIMES, torch.zeros_like(TIMES))})
    return pa.simulate_population(read_structure(linear_program, empty), empty, TRUTH, seed=seed)


def checks_of(cohort, observed):
    cohort = Cohort({"y": Series(TIMES, cohort["y"].values, observed)})
    fit = pa.fit_population(linear_program, cohort, num_draws=200, num_starts=1, seed=1)
    return missingness_checks(fit, residuals(fit, num_simulations=300, seed=1))


def at_random(values, generator):
    return torch.rand(values.shape, generator=generator, dtype=torch.float64) > 0.25


def above_a_limit(values, generator):
    return values > values.quantile(0.25)


def until_a_high_value(values, generator):
    """Individuals leave after a value far above their own line."""
    errors = values - values.mean(1, keepdim=True) - (values - values.mean(1, keepdim=True)).mean(0)
    before = torch.cat([torch.zeros_like(errors[:, :1]), errors[:, :-1]], 1)
    return (before > 0.7).cumsum(1) == 0


@pytest.mark.parametrize(
    ("mechanism", "status", "words"),
    [
        (at_random, "passed", "No deviation"),
        (above_a_limit, "look", "missing where the model predicts low ones"),
        (until_a_high_value, "look", "last values before missing ones are unusually high"),
    ],
)
def test_what_is_missing_is_tested(mechanism, status, words):
    cohort, generator = whole(3), torch.Generator().manual_seed(5)
    (check,) = checks_of(cohort, mechanism(cohort["y"].values, generator))
    assert (check.status, check.about) == (status, "model"), check.words
    assert words in check.words


def test_nothing_is_tested_where_nothing_is_missing():
    cohort = whole(4)
    assert checks_of(cohort, torch.ones_like(TIMES, dtype=torch.bool)) == []


def test_padding_is_not_missing():
    times = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 1.0]])
    observed = torch.tensor([[True, False, True], [True, True, False]])
    series = Series(times, torch.ones(2, 3), observed)
    assert planned_but_missing(series).tolist() == [[False, True, False], [False, False, False]]
