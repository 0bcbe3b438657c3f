"""Times after dose, and where lines are broken."""

import numpy as np
import torch

from pyro_amortized import Cohort, Doses, Series
from pyro_amortized.diagnostics.dose_intervals import (
    course_numbers,
    time_after_dose,
    unbroken,
    with_breaks,
)


def test_time_after_dose():
    times = torch.tensor([[0.0, 1.0, 12.0, 30.0], [0.5, 2.0, 3.0, 4.0]]).double()
    doses = Doses(
        torch.tensor([[0.0, 12.0, 24.0], [2.5, 0.0, 0.0]]).double(),
        torch.full((2, 3), 10.0).double(),
        given=torch.tensor([[True, True, True], [True, False, False]]),
    )
    cohort = Cohort({"y": Series(times, torch.ones(2, 4).double())}, doses)
    after = time_after_dose(cohort, "y")
    assert after[0].tolist() == [0.0, 1.0, 0.0, 6.0]  # a dose at the time of a value is its last
    assert after[1, :2].isnan().all()
    assert after[1, 2:].tolist() == [0.5, 1.5]
    assert time_after_dose(Cohort(dict(cohort.series)), "y").isnan().all()
    by_dose = course_numbers(cohort, "y", by_dose=True)
    assert by_dose[0].tolist() == [1, 1, 2, 3]
    assert by_dose[1].tolist() == [4, 4, 5, 5]
    assert course_numbers(cohort, "y", by_dose=False)[:, 0].tolist() == [0, 1]


def test_lines_are_broken_where_a_dose_lies_in_a_long_gap():
    times = np.array([0.5, 1, 2, 4, 8, 11.9, 72.5, 73, 76, 83.9])
    doses = np.arange(0, 84, 12.0)
    assert unbroken(times, doses) == [slice(0, 6), slice(6, 10)]
    x, y = with_breaks(times, times, doses)
    assert np.isnan(x).sum() == 1
    assert np.array_equal(x[~np.isnan(x)], times)
    assert np.array_equal(np.isnan(x), np.isnan(y))


def test_lines_over_troughs_and_over_a_slow_end_stay():
    troughs = np.arange(12.0, 120, 12)
    assert unbroken(troughs, troughs) == [slice(0, 9)]
    after_dose = np.array([0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 12, 24, 48])  # a sparse end
    assert unbroken(after_dose, np.zeros(0)) == [slice(0, 12)]
    two_visits = np.array([1, 2, 3, 4, 5, 6, 100, 101, 102.0])
    assert unbroken(two_visits, np.zeros(0)) == [slice(0, 6), slice(6, 9)]
    single_dose = np.array([0, 0.25, 0.5, 1, 2, 3.5, 5, 7, 9, 12, 24])
    assert unbroken(single_dose, np.zeros(1)) == [slice(0, 11)]
