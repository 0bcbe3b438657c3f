"""Individuals outside the training data are found, with the right reason."""

import warnings

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import check_data
from pyro_amortized.errors import GuideError
from tests.exact import TRUTH, linear_cohort


@pytest.mark.slow
def test_clean_data_are_inside(linear_guide, linear, fit):
    check = check_data(linear_guide, linear, population=fit.estimates)
    assert check.outside == []
    assert "All 40" in check.verdict
    for seed in range(3):
        other = linear_cohort(num=40, seed=100 + seed)
        other = other[other["y"].observed.sum(1) <= 6]  # as many as in training
        assert len(check_data(linear_guide, other, population=TRUTH).outside) <= 1


def test_shifted_data_and_wrong_units_are_found(linear_guide, linear):
    for values in (linear["y"].values + 40, 1000 * linear["y"].values):
        check = check_data(linear_guide, linear.with_values({"y": values}))
        assert len(check.outside) > 30
        assert "in training" in check.verdict


def test_an_unseen_pattern_is_found(linear_guide, linear):
    late = pa.Series(linear["y"].times + 50, linear["y"].values, linear["y"].observed)
    cohort = pa.Cohort({"y": late}, ids=linear.ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        check = check_data(linear_guide, cohort)
    assert len(check.outside) > 30
    assert "recorded time" in check.verdict


def test_a_wrong_model_is_found(linear_guide):
    """One individual has a sine wave, where the model has straight lines."""
    cohort = linear_cohort(num=40, missing=0.0, seed=5)
    cohort = cohort[cohort["y"].observed.sum(1) <= 6]
    values = cohort["y"].values.clone()
    rich = int(cohort["y"].observed.sum(1).argmax())
    values[rich] = 1 + 2.5 * torch.sin(4 * cohort["y"].times[rich])
    check = check_data(linear_guide, cohort.with_values({"y": values}), population=TRUTH)
    assert cohort.ids[rich] in check.outside
    assert "hardly produces" in "".join(check.reasons[cohort.ids[rich]])
    assert len(check.outside) <= 2
    table = check.table()
    assert table.loc[cohort.ids[rich], "predictive p"] < 0.002


def test_too_few_simulations_for_a_check(linear_guide, linear):
    with pytest.raises(GuideError, match="num_simulated"):
        check_data(linear_guide, linear, num_simulated=5)
