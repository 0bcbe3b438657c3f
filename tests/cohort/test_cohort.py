import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_amortized import Cohort, Doses, Series, concatenate
from pyro_amortized.errors import CohortError

NAN = math.nan


def small(num=3, width=4):
    times = torch.arange(width, dtype=torch.float64).expand(num, -1)
    values = torch.arange(num * width, dtype=torch.float64).reshape(num, width) + 1
    return Cohort({"y": Series(times, values)}, covariates={"w": torch.arange(num).double()})


def refused(match, make):
    with pytest.raises(CohortError, match=match) as caught:
        make()
    assert "Expected: " in str(caught.value)
    assert "To fix: " in str(caught.value)


def test_nan_is_accepted_at_the_door_and_gone_inside():
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


def test_bad_cohorts():
    one, two = (
        Series(torch.zeros(1, 2), torch.ones(1, 2)),
        Series(torch.zeros(2, 2), torch.ones(2, 2)),
    )
    refused("no series", lambda: Cohort({}))
    refused("2 individuals", lambda: Cohort({"a": one, "b": two}))
    refused("2 individuals", lambda: Cohort({"a": one}, covariates={"w": torch.zeros(2)}))
    refused("not finite", lambda: Cohort({"a": one}, covariates={"w": torch.tensor([NAN])}))
    refused("no series 'z'", lambda: small()["z"])
    refused("2 individuals", lambda: Cohort({"a": one}, ids=("x", "y")))


def test_bad_doses():
    refused("`given`", lambda: Doses(torch.zeros(1, 1), torch.ones(1, 1), given=torch.ones(1, 2)))
    refused("dtype", lambda: Doses(torch.zeros(1, 1), torch.ones(1, 1), given=torch.ones(1, 1)))
    refused("negative", lambda: Doses(torch.zeros(1, 1), -torch.ones(1, 1)))
    refused("not finite", lambda: Doses(torch.tensor([[NAN]]), torch.ones(1, 1)))


def test_selecting_repeating_and_joining():
    cohort = small()
    assert cohort[[2, 0]].ids == ("3", "1")
    assert len(cohort[1:]) == 2
    assert len(cohort[0]) == 1
    assert [len(one) for one in cohort] == [1, 1, 1]
    twice = cohort.repeat(2)
    assert torch.equal(twice["y"].values[3:], cohort["y"].values)
    both = concatenate([cohort, small(2, 6)])
    assert both["y"].values.shape == (5, 6)
    assert both.num_observations == cohort.num_observations + 12
    assert both["y"].times[0].tolist() == [0, 1, 2, 3, 3, 3]
    with pytest.raises(CohortError, match="was concatenated with"):
        concatenate([cohort, Cohort({"z": cohort["y"]})])


def test_doses_pad_and_travel():
    series = Series(torch.zeros(2, 1), torch.ones(2, 1))
    given = torch.tensor([[True, False], [True, True]])
    doses = Doses(torch.tensor([[0.0, NAN], [0.0, 1.0]]), torch.ones(2, 2), given=given)
    cohort = Cohort({"y": series}, doses)
    assert cohort.doses.times.tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert cohort.doses.amounts.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert cohort[[1]].doses.given.tolist() == [[True, True]]
    joined = concatenate([cohort[[0]], cohort])
    assert torch.equal(joined.doses.given[1:], given)
    assert joined.to(dtype=torch.float64).doses.amounts.dtype == torch.float64


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_less_recorded_is_never_more(masks):
    mask = torch.tensor(masks)
    cohort = small(len(masks), 3).with_observed({"y": mask})
    assert torch.equal(cohort["y"].observed, mask)
    assert cohort.num_observations == int(mask.sum())
    again = cohort.with_observed({"y": torch.ones_like(mask)})
    assert torch.equal(again["y"].observed, mask)
    assert cohort["y"].values.isfinite().all()
