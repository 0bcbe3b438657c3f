"""Data beside the predictions of the program under its prior, before a fit."""

import pytest
import quickstart
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import check_data
from pyro_amortized.model import read_structure
from pyro_amortized.population.prior_predictions import compare_with_prior
from tests.exact import linear_cohort, linear_program

SERIES = "concentration"


def times(cohort, factor, rows=slice(None)):
    values = cohort[SERIES].values.clone()
    values[rows] *= factor
    return cohort.with_values({SERIES: values})


def test_nothing_is_said_about_the_data_of_the_model():
    compared = compare_with_prior(
        read_structure(quickstart.model, quickstart.cohort), quickstart.cohort
    )
    assert compared.words == ""
    for seed in range(5):
        cohort = linear_cohort(num=40, seed=seed)
        assert compare_with_prior(read_structure(linear_program, cohort), cohort).words == ""


@pytest.mark.parametrize("factor", [60.0, 1 / 60, 1000.0])
def test_one_individual_in_another_unit_is_named_and_no_other_one(factor):
    wrong = times(quickstart.cohort, factor, 4)
    check = check_data(quickstart.model, wrong)
    assert check.outside == [wrong.ids[4]]
    assert not check.of_all
    assert "times what the model makes of those of the others" in check.verdict
    assert check_data(quickstart.model, wrong).verdict == check.verdict


def test_all_values_in_another_unit_blame_no_individual():
    check = check_data(quickstart.model, times(quickstart.cohort, 1000))
    assert check.outside == []
    assert "check the units" in check.verdict
    assert (
        "All 12 individuals lie inside" in check_data(quickstart.model, quickstart.cohort).verdict
    )


def test_a_dose_in_another_unit_is_named_beside_the_values():
    doses = quickstart.cohort.doses
    amounts = doses.amounts.clone()
    amounts[2] *= 1000
    cohort = pa.Cohort(
        dict(quickstart.cohort.series),
        doses=pa.Doses(doses.times, amounts),
        covariates=dict(quickstart.cohort.covariates),
        ids=quickstart.cohort.ids,
    )
    check = check_data(quickstart.model, cohort)
    assert check.outside == [cohort.ids[2]]
    assert "its doses are" in check.verdict


def test_a_fit_warns_before_it_begins():
    wrong = times(quickstart.cohort, 1000)
    with pytest.warns(pa.AmortizedWarning, match="unusual under the prior.*units"):
        pa.fit_population(quickstart.model, wrong, num_draws=100, num_starts=1)


def test_a_cohort_that_is_too_large_is_left_alone():
    cohort = linear_cohort(num=40, seed=1)
    large = cohort[torch.arange(40).repeat(400)]
    shifted = large.with_values({"y": large["y"].values + 1000})
    assert compare_with_prior(read_structure(linear_program, cohort), shifted).words == ""
