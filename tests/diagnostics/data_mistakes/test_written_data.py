"""Mistakes of a file are found and called by their name, and right files pass."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics.data_mistakes.written_data import written_data_checks
from tests.diagnostics.linear_weights import (
    TRUTH,
    exact_log_likelihood,
    program,
    right_cohort,
    with_covariates,
)


def check_of(cohort, *, beside=False):
    fit = pa.fit_population(program, cohort, num_starts=1, seed=1)
    (check,) = written_data_checks(fit, beside=beside)
    return check


def pounds_at_a_site(cohort):
    weight = cohort.covariates["weight"].clone()
    weight[cohort.covariates["site"] == 1] *= 2.2046
    return with_covariates(cohort, weight=weight)


def exchanged_columns(cohort):
    known = cohort.covariates
    return with_covariates(cohort, weight=known["age"], age=known["weight"])


def exchanged_individuals(cohort):
    weight = cohort.covariates["weight"].clone()
    pair = [int(weight.argmin()), int(weight.argmax())]
    weight[pair] = weight[pair[::-1]]
    return with_covariates(cohort, weight=weight)


def reversed_records(cohort):
    values = cohort["y"].values.clone()
    values[[4, 20]] = values[[4, 20]].flip(1)
    return pa.Cohort({"y": pa.Series(cohort["y"].times, values)}, covariates=cohort.covariates)


def one_row_too_low(cohort):
    return with_covariates(cohort, weight=cohort.covariates["weight"].roll(1))


def lost_marks(cohort):
    values = cohort["y"].values.clone()
    for i in range(0, len(cohort) - 1, 6):
        values[[i, i + 1], 3:] = values[[i + 1, i], 3:]
    return pa.Cohort({"y": pa.Series(cohort["y"].times, values)}, covariates=cohort.covariates)


def labels_of_a_site(cohort):
    """Two tubes of each individual of a site have each other's label."""
    values, rows = cohort["y"].values.clone(), cohort.covariates["site"] == 1
    first, second = values[rows, 1].clone(), values[rows, 4].clone()
    values[rows, 1], values[rows, 4] = second, first
    return pa.Cohort({"y": pa.Series(cohort["y"].times, values)}, covariates=cohort.covariates)


FILES = {
    "labels": (labels_of_a_site, ("where site is 1", "the values 2 and 5 of 'y' are exchanged")),
    "rows": (one_row_too_low, ("in all individuals", "its covariates stand in the row above")),
    "marks": (lost_marks, ("1 and 2, 7 and 8", "exchanged from value 4 on")),
    "pounds at a site": (pounds_at_a_site, ("where site is 1", "pounds")),
    "columns": (exchanged_columns, ("in all individuals", "'weight' and 'age' are exchanged")),
    "individuals": (exchanged_individuals, ("the covariates of", "are exchanged")),
    "records": (reversed_records, ("reverse order", "5", "21")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_is_named(name):
    change, words = FILES[name]
    check = check_of(change(right_cohort(3)))
    # An exchange of one pair is one of a thousand, and its p-value is never very small.
    expected = ("look", "failed") if name == "individuals" else ("failed",)
    assert check.status in expected, check.words
    for word in words:
        assert word in check.words, check.words


@pytest.mark.parametrize("seed", [11, 12])
def test_right_files_pass_also_beside_another_deviation(seed):
    assert check_of(right_cohort(seed), beside=True).status == "passed"


def test_the_likelihood_ratio_of_a_right_file_has_the_mean_one():
    """With the true population: the p-value is then exact by the inequality of Markov."""
    cohort = right_cohort(5, num=20_000)
    changed = with_covariates(cohort, weight=cohort.covariates["weight"] * 1.05)
    log_ratio = exact_log_likelihood(changed, TRUTH) - exact_log_likelihood(cohort, TRUTH)
    ratio = log_ratio.exp()
    error = float(ratio.std()) / len(ratio) ** 0.5
    assert abs(float(ratio.mean()) - 1) < 4 * error


def test_few_individuals_are_not_compared():
    fit = pa.fit_population(program, right_cohort(3, num=5), num_starts=1, seed=1)
    assert written_data_checks(fit) == []


def test_the_random_state_is_left_as_found():
    fit = pa.fit_population(program, right_cohort(3), num_starts=1, seed=1)
    state = torch.get_rng_state()
    first, second = (written_data_checks(fit, seed=4)[0] for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first == second
