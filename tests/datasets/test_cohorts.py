"""The tables that ship with the library hold what their documentation says."""

import pytest
import torch

from pyro_amortized import datasets

COHORTS = {
    # name: individuals, values by series, covariates, doses
    "theophylline": (12, {"concentration": 132}, {"weight"}, 12),
    "phenobarbital": (59, {"concentration": 155}, {"weight", "apgar"}, 589),
    "warfarin": (32, {"concentration": 251, "pca": 232}, {"weight", "age", "male"}, 32),
    "indometh": (6, {"concentration": 66}, set(), 6),
    "orange": (5, {"circumference": 35}, set(), 0),
}


@pytest.mark.parametrize("name", COHORTS)
def test_a_cohort_has_the_individuals_values_covariates_and_doses_of_its_source(name):
    cohort = getattr(datasets, name)()
    num_individuals, num_values, covariates, num_doses = COHORTS[name]
    assert len(cohort) == num_individuals
    assert {n: s.num_observations for n, s in cohort.series.items()} == num_values
    assert set(cohort.covariates) == covariates
    assert num_doses == (0 if cohort.doses is None else int(cohort.doses.given.sum()))
    for series in cohort.series.values():
        recorded = series.values[series.observed]
        assert (recorded >= 0).all()
        assert recorded.isfinite().all()


def test_a_table_is_read_anew_at_every_call():
    """A changed tensor of one result is not seen in the next."""
    cohort = datasets.orange()
    first = cohort["circumference"].values.clone()
    cohort["circumference"].values.zero_()
    assert torch.equal(datasets.orange()["circumference"].values, first)


def test_theophylline_is_the_published_data():
    cohort = datasets.theophylline()
    assert float(cohort.doses.amounts[0, 0]) == pytest.approx(4.02 * 79.6)
    assert float(cohort["concentration"].values.sum()) == pytest.approx(654.78, abs=0.005)
