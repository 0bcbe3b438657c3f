"""Limits that were written as values, values carried forward, and coarse rounding are named."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pyro_amortized import Cohort, Series, nlme
from pyro_amortized.diagnostics.data_mistakes.recorded_values import (
    recorded_event_checks,
    recorded_value_checks,
)
from pyro_amortized.diagnostics.measurements.residual_analysis import Residuals
from pyro_amortized.diagnostics.measurements.value_levels import LevelWeights

NUM, WIDTH, SIGMA = 40, 6, 0.2


def residuals_of(change, seed=1):
    """Residuals of values around a known curve."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(NUM, 1, generator=generator).double() + 4
    curve = level - 0.3 * torch.arange(WIDTH).double()
    noise = torch.randn(NUM, WIDTH, generator=generator).double()
    values = change(curve + SIGMA * noise)
    ids = tuple(str(i) for i in range(NUM) for _ in range(WIDTH))
    flat, predictions = values.flatten(), curve.flatten()
    unknown = torch.full_like(flat, torch.nan)
    levels = LevelWeights(unknown, unknown, are_logarithms=False)
    return Residuals(
        *("y", ids, torch.arange(WIDTH).double().repeat(NUM), flat, unknown.isfinite()),
        *(predictions, predictions, (flat - predictions) / SIGMA, *[unknown] * 4, levels),
        *(predictions.unsqueeze(0), ((flat - predictions) / SIGMA).unsqueeze(0)),
        *(unknown.unsqueeze(0), torch.zeros(len(flat), 0), unknown),
    )


def check_of(change, seed=1):
    found = residuals_of(change, seed)
    times = torch.arange(WIDTH).double().expand(NUM, -1)
    cohort = Cohort({"y": Series(times, found.observed.reshape(NUM, WIDTH))})
    (check,) = recorded_value_checks(found, cohort)
    return check


def forward(values):
    values = values.clone()
    values[::5, 3:] = values[::5, 2:3]
    return values


def some_rounded(values):
    values = values.clone()
    values[::4] = (2 * values[::4]).round() / 2
    return values


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.clamp(min=2.5), "the value 2.5, the smallest of all, occurs"),
        (lambda y: torch.where(y < 2.5, 1.25, y), "the value 1.25"),
        (lambda y: y.clamp(max=5.0), "the largest of all"),
        (lambda y: (100 * y).round().div(100).clamp(min=2.5), "the value 2.5"),
        (forward, "8 individuals end with 3 equal values"),
        (lambda y: (2 * y).round() / 2, "2.5 standard deviations of the errors"),
        (some_rounded, "all values of 10 individuals (0, 4, 8, 12, 16, ...) are multiples of 0.5"),
        (
            lambda y: some_rounded((20 * y).round() / 20),
            "all values of 10 individuals (0, 4, 8, 12, 16, ...) are multiples of 0.5",
        ),
    ],
)
def test_it_is_named(change, words):
    check = check_of(change)
    assert check.status == "look"
    assert words in check.words


@pytest.mark.parametrize("digits", [1, 2, 3, 15])
def test_measured_values_pass(digits):
    for seed in range(10):
        check = check_of(lambda y: (y * 10**digits).round() / 10**digits, seed)
        assert check.status == "passed", check.words


@pytest.mark.parametrize("digits", [2, 3])
def test_values_with_few_significant_digits_pass(digits):
    """Their unit is ten times as large above each power of ten, as in most laboratories."""

    def rounded(y):
        y = (0.8 * y).exp()
        unit = 10 ** (y.log10().floor() - digits + 1)
        return (y / unit).round() * unit

    for seed in range(10):
        found = residuals_of(rounded, seed)
        scale = found.observed.abs() * SIGMA  # errors that are proportional to the value
        found = replace(found, iwres=(found.observed - found.individual) / scale)
        times = torch.arange(WIDTH).double().expand(NUM, -1)
        cohort = Cohort({"y": Series(times, found.observed.reshape(NUM, WIDTH))})
        (check,) = recorded_value_checks(found, cohort)
        assert " times in " not in check.words, check.words
        assert "repeat" not in check.words, check.words


def test_censored_values_are_no_mistake():
    found = residuals_of(lambda y: y.clamp(min=2.5))
    times = torch.arange(WIDTH).double().expand(NUM, -1)
    cohort = Cohort({"y": Series(times, found.observed.reshape(NUM, WIDTH))})
    known = replace(found, censored=found.observed == 2.5)
    assert recorded_value_checks(known, cohort)[0].status == "passed"
    few = replace(found, censored=torch.ones_like(found.censored))
    assert recorded_value_checks(few, cohort) == []


def test_values_that_repeat_the_one_before_are_named():
    def repeated(values):
        values = values.clone()
        values[::6, 3] = values[::6, 2]
        return values

    check = check_of(repeated)
    assert check.status == "look"
    assert "7 values of 7 individuals repeat the one before" in check.words

    def rounded(values):
        return (values * 20).round() / 20

    assert check_of(rounded).status == "passed"


def events_of(change):
    """Times of events of forty individuals, seen until the time ten."""
    generator = torch.Generator().manual_seed(6)
    times = 7 * -torch.rand(40, generator=generator).double().log()
    status = (times < 10).double()
    values = change(torch.stack([times.clamp(max=10.0), status], -1))
    ends = torch.full((40,), 10.0).double()
    series = nlme.event_series(values[:, 0], values[:, 1] > 0, end=ends)
    cohort = Cohort({"death": series})
    known = SimpleNamespace(
        series="death",
        ids=cohort.ids,
        happened=values[:, 1] > 0,
        bounds=torch.zeros(40, 2).double(),
    )
    (check,) = recorded_event_checks(known, cohort)
    return check


def test_ends_that_were_written_as_events_are_named():
    def change(values):
        values[:, 1] = 1.0
        return values

    check = events_of(change)
    assert check.status == "look"
    assert "events stand exactly at the end of the observation" in check.words


def test_events_at_visits_are_named_and_days_are_not():
    def visits(unit):
        return lambda v: torch.stack([(v[:, 0] / unit).ceil() * unit, v[:, 1]], -1)

    assert "multiples of 2.5" in events_of(visits(2.5)).words
    assert events_of(visits(0.125)).status == "passed"
    assert events_of(lambda v: v).status == "passed"
