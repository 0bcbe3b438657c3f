from dataclasses import replace

import pytest
import torch
from quickstart import model

import pyro_amortized as pa
from pyro_amortized import datasets
from pyro_amortized.errors import FitError
from pyro_amortized.population.search.impossible_data import impossible_individuals


@pytest.mark.parametrize("factor", [30.0, 1e3, 1e12])
def test_a_misplaced_decimal_point_ends_with_the_name_of_the_individual(factor):
    cohort = datasets.theophylline()
    series = cohort["concentration"]
    values = series.values.clone()
    values[3, 4] *= factor
    wrong = replace(cohort, series={"concentration": replace(series, values=values)})
    with pytest.raises(FitError, match=f"impossible.*: {cohort.ids[3]} ") as caught:
        pa.fit_population(model, wrong, seed=1)
    assert "decimal point" in caught.value.fix


def test_only_deficits_that_are_large_beside_those_of_the_others_count():
    num_values = torch.tensor([10, 10, 10, 10])
    ordinary = torch.tensor([-20.0, -35.0, -18.0, -100.0])
    assert len(impossible_individuals(ordinary, num_values)) == 0
    # Far from the maximum all individuals are unlikely.
    assert len(impossible_individuals(1e4 * ordinary, num_values)) == 0
    worst = torch.tensor([-20.0, -1e5, -18.0, -torch.inf])
    assert impossible_individuals(worst, num_values).tolist() == [3, 1]


def test_many_values_of_one_individual_are_not_impossible():
    log_likelihood = torch.tensor([-20.0, -35.0, -18.0, -40_000.0])
    assert len(impossible_individuals(log_likelihood, torch.tensor([10, 10, 10, 20_000]))) == 0
