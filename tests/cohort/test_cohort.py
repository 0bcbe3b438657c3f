import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_amortized import Cohort, Series
from tests.cohort.kit import refused, small

NAN = math.nan


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
    for cohort in (small(), small().repeat(2), small()[1:]):
        refused("no covariate 'z'", lambda cohort=cohort: cohort.covariates["z"])
        refused("no time-varying series 'z'", lambda cohort=cohort: cohort.time_varying["z"])
        refused("a column LLOQ of the table", lambda cohort=cohort: cohort.time_varying["y_low"])
        assert cohort.covariates.get("z") is None
        assert "z" not in cohort.time_varying
    refused("2 individuals", lambda: Cohort({"a": one}, ids=("x", "y")))


def test_selecting_and_repeating():
    cohort = small()
    assert cohort[[2, 0]].ids == ("3", "1")
    assert len(cohort[1:]) == 2
    assert len(cohort[0]) == 1
    assert [len(one) for one in cohort] == [1, 1, 1]
    twice = cohort.repeat(2)
    assert torch.equal(twice["y"].values[3:], cohort["y"].values)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_less_recorded_is_never_more(masks):
    mask = torch.tensor(masks)
    cohort = small(len(masks), 3).with_observed({"y": mask})
    assert torch.equal(cohort["y"].observed, mask)
    assert cohort.num_observations == int(mask.sum())
    unchanged = cohort.with_observed({"y": torch.ones_like(mask)})
    assert torch.equal(unchanged["y"].observed, mask)
    assert cohort["y"].values.isfinite().all()
