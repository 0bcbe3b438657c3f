import math

import torch

from pyro_amortized import Series
from tests.cohort.kit import refused

NAN = math.nan


def test_nan_is_accepted_and_replaced():
    series = Series(torch.tensor([[0.0, 1.0, NAN]]), torch.tensor([[NAN, 5.0, NAN]]))
    assert series.observed.tolist() == [[False, True, False]]
    assert series.values.tolist() == [[5.0, 5.0, 5.0]]
    assert series.times.tolist() == [[0.0, 1.0, 1.0]]


def test_placeholders_under_the_mask_are_replaced():
    observed = torch.tensor([[False, True], [False, False]])
    series = Series(torch.zeros(2, 2), torch.tensor([[-99.0, 2.0], [-99.0, -99.0]]), observed)
    assert series.values.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_bad_series():
    t, y = torch.zeros(2, 3), torch.ones(2, 3)
    refused("`observed` has shape", lambda: Series(t, y, torch.ones(2, 4, dtype=torch.bool)))
    refused("`times` has shape", lambda: Series(torch.zeros(2, 2), y))
    refused("dtype", lambda: Series(t, y, torch.ones(2, 3)))
    refused("not finite", lambda: Series(t, torch.full((2, 3), torch.inf)))
    refused("not finite", lambda: Series(t, y * NAN, torch.ones(2, 3, dtype=torch.bool)))
    refused("not sorted", lambda: Series(torch.tensor([[0.0, 2.0, 1.0]]), torch.ones(1, 3)))
    refused("not finite", lambda: Series(torch.tensor([[0.0, NAN, 1.0]]), torch.ones(1, 3)))
    refused("shape", lambda: Series(torch.zeros(3), torch.zeros(3)))
    refused("list", lambda: Series([[0.0]], torch.ones(1, 1)))
    gap = torch.tensor([[0.0, NAN, 1.0]])
    refused("not sorted", lambda: Series(gap, torch.tensor([[1.0, NAN, 1.0]])))


def test_the_next_value_and_the_last_one():
    times = torch.tensor([[0.0, 2.0, 5.0, 5.0], [1.0, 3.0, 4.0, NAN]]).double()
    values = torch.tensor([[1.0, NAN, 3.0, 4.0], [NAN, 7.0, NAN, NAN]]).double()
    series = Series(times, values)
    when = torch.tensor([[-1.0, 1.0, 2.0, 5.0, 9.0], [0.0, 2.0, 3.0, 3.5, 9.0]]).double()
    assert series.at(when).tolist() == [[1.0, 1.0, 1.0, 4.0, 4.0], [7.0] * 5]
    assert series.at(when, "next").tolist() == [[1.0, 3.0, 3.0, 3.0, 4.0], [7.0] * 5]
    refused("The rule is", lambda: series.at(when, "nearest"))
