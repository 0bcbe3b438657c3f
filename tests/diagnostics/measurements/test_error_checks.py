"""Errors of measurement that are not what the model says; right ones pass."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

import pyro_amortized as pa
from pyro_amortized import Cohort, Series
from pyro_amortized.diagnostics import residuals
from pyro_amortized.diagnostics.measurements.error_checks import (
    _chi2_scores,
    _mean_spreads,
    _spread_by,
    error_checks,
)
from pyro_amortized.diagnostics.measurements.score_tests import _score_p_value
from pyro_amortized.diagnostics.variables.compared_variables import Variable
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
    scores = fit.scores[:, fit.estimated].numpy()
    (check,) = error_checks(residuals(fit, num_simulations=300, seed=1), fit.cohort, scores)
    return check


def normal(seed):
    return torch.randn(NUM, 6, generator=torch.Generator().manual_seed(seed)).double()


def heavy_tails():
    chi2 = (normal(2) ** 2 + normal(3) ** 2) / 2
    return normal(1) / chi2.sqrt()


def higher_in_a_group():
    """By three residual standard deviations, twice as much as the intercepts vary."""
    return normal(1) + 3.0 * GROUP.unsqueeze(1)


def changing_in_a_group():
    """In a curve, with which the lines of this group do not agree."""
    return normal(1) + 4.0 * GROUP.unsqueeze(1) * torch.tensor([0, 0, 0, 0, 1, 1]).double()


def autocorrelated():
    """Six values each; their correlation is 0.85 to the neighbour."""
    errors = normal(1)
    for j in range(1, 6):
        errors[:, j] = 0.85 * errors[:, j - 1] + (1 - 0.85**2) ** 0.5 * errors[:, j]
    return errors


def one_wild_value():
    errors = normal(1)
    errors[7, 2] = 9.0
    return errors


def by_group():
    return normal(1) * (1 + 3 * GROUP).unsqueeze(1)


def twice_in_the_second_half():
    later = (torch.arange(NUM) >= NUM // 2).double()
    return normal(1) * (1 + later).unsqueeze(1)


def two_devices_in_a_group():
    """At every other visit; neither the level nor the trend of the group differs."""
    return normal(1) + 1.2 * GROUP.unsqueeze(1) * torch.tensor([1, -1, 1, -1, 1, -1]).double()


def one_box_of_a_group():
    lost = normal(1)
    lost[:, 3] -= 2.5 * GROUP
    return lost


def by_individual():
    return normal(1) * torch.exp(normal(4)[:, :1])


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (heavy_tails, "not normally distributed"),
        (one_wild_value, "of individual 8 at the time 1.2 lies"),
        (autocorrelated, "errors of neighbouring values of an individual go together"),
        (higher_in_a_group, "the values as a whole are higher"),
        (changing_in_a_group, "late values, given the early ones, are higher"),
        (by_group, "the size of the errors goes with group"),
        (twice_in_the_second_half, "the size of the errors goes with the order in the file"),
        (two_devices_in_a_group, "where group is 1, and deviate there at other times, too"),
        (one_box_of_a_group, "values at times of about 1.8 are lower than the model says where"),
        (by_individual, "errors of different size"),
    ],
)
def test_wrong_errors_are_named(errors, words):
    check = check_of(errors())
    assert check.status == "failed"
    assert words in check.words
    assert check.about == "model"


def test_a_time_varying_covariate_that_is_left_out_is_named():
    generator = torch.Generator().manual_seed(8)
    changing = torch.randn(NUM, 6, generator=generator).double()
    cohort = replace(
        cohort_with(normal(1) + changing),
        time_varying={"creatinine": Series(TIMES.repeat(NUM, 1), changing)},
    )
    fit = pa.fit_population(linear_program, cohort, num_draws=200, num_starts=1, seed=1)
    scores = fit.scores[:, fit.estimated].numpy()
    (check,) = error_checks(residuals(fit, num_simulations=300, seed=1), fit.cohort, scores)
    assert check.status == "failed"
    assert "the changes of creatinine within the individuals" in check.words


def test_right_errors_pass():
    check = check_of(normal(1))
    assert check.status == "passed"
    assert check.value > 0.05


def drawn_spreads(rng, counts, group, factor):
    """Normal scores of the sums of squares of exact posterior draws: parabolas with three random
    effects, errors that are larger by a factor in a group, and one standard deviation for all.
    """
    common = 1 + (factor**2 - 1) * group.mean()
    sums = []
    for count, inside in zip(counts, group, strict=True):
        design = np.vander(rng.uniform(-1, 1, count), 3)
        noise = (factor if inside else 1.0) * rng.standard_normal(count)
        values = design @ (4 * rng.standard_normal(3)) + noise
        covariance = np.linalg.inv(design.T @ design / common + np.eye(3) / 16)
        mean = covariance @ design.T @ values / common
        unit = rng.standard_normal((3, 10))
        effects = mean[:, None] + np.linalg.cholesky(covariance) @ unit
        sums.append(((values[:, None] - design @ effects) ** 2).sum(0) / common)
    return _chi2_scores(np.array(sums).T, counts)


def spread_p_values(counts, factor, num):
    rng, rows = np.random.default_rng(3), np.arange(len(counts))
    group = (rows % 4 == 0).astype(float)
    found = []
    for _ in range(num):
        spreads = _mean_spreads(drawn_spreads(rng, counts, group, factor), counts)
        found += [x.p_value for x in _spread_by(Variable("group", group), spreads, rows)]
    return np.array(found)


@pytest.mark.parametrize("numbers", [(7, 7), (12, 3), (2, 9)])
def test_spreads_of_groups_have_right_p_values(numbers):
    """Also where the individuals of one group have many more values."""
    counts = np.where(np.arange(48) % 4 == 0, *numbers)
    p_values = spread_p_values(counts, 1.0, 600)
    for level in (0.005, 0.05, 0.3):
        assert (p_values < level).sum() <= scipy.stats.binom.ppf(0.9995, 600, level)
    assert (p_values < 0.3).mean() > 0.2


def test_spreads_of_groups_use_all_draws_together():
    """Single draws, whose tests were combined, found 0.8 at this level."""
    p_values = spread_p_values(np.full(48, 7), 2.0, 40)
    assert (p_values < 0.005).mean() >= 0.9


def test_the_score_test_of_an_autocorrelation_has_uniform_p_values():
    """Residuals that are independent, and scores of parameters that explain a part of them."""
    generator, p_values = np.random.default_rng(1), []
    rows = np.repeat(np.arange(30), 5)
    same = rows[1:] == rows[:-1]
    for _ in range(400):
        z = generator.standard_normal(len(rows))
        drawn = z + 0.0 * np.ones((2, 1))
        first = np.bincount(rows, z, 30)
        scores = np.column_stack([first, np.bincount(rows, z**2 - 1, 30)])
        p_values.append(_score_p_value(rows, drawn, same, scores))
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.001
    assert _score_p_value(rows[:20], drawn[:, :20], same[:19], scores) is None


def test_counts_without_normal_scores_are_not_tested():
    """Without their distribution function, their residuals are not normal under the right model."""
    cohort = cohort_with(normal(1))
    fit = pa.fit_population(linear_program, cohort, num_draws=200, num_starts=1, seed=1)
    result = residuals(fit, num_simulations=100, seed=1)
    assert error_checks(replace(result, kind="count", has_scores=False), fit.cohort) == []
