import pytest
import torch

from pyro_amortized.cohort.time_grid import common_grid
from pyro_amortized.encode import Deletion, FillIn, Indicator, TimeLabels
from pyro_amortized.errors import GuideError
from tests.encode.kit import fitted, gridded
from tests.programs import growth_cohort


def test_fill_in_cannot_tell_a_filled_value_from_a_recorded_one():
    cohort = gridded()
    grid = common_grid(cohort, ["y"])
    y = cohort["y"]
    value = float(y.values[0, 1])
    hidden = y.observed.clone()
    hidden[0, 1] = False
    less = cohort.with_observed({"y": hidden})
    fill, indicator = (
        fitted(cohort, ["y"], grid, encoding) for encoding in (FillIn(value), Indicator(value))
    )
    assert torch.allclose(fill(less).tokens[0], fill(cohort).tokens[0])
    assert not torch.allclose(indicator(less).tokens[0], indicator(cohort).tokens[0])
    assert indicator(less).tokens[0, 1, 1] == 0
    assert fill(less).mask.all()
    for encoding in (FillIn(0.0), Indicator(0.0)):
        with pytest.raises(GuideError, match="individual times"):
            fitted(growth_cohort(5), ["y"], None, encoding)


def test_labels_and_deletion_keep_recorded_values_only():
    cohort = growth_cohort(200)
    raw, normalised, deleted = (
        fitted(cohort, ["y"], None, e) for e in (TimeLabels(), TimeLabels(True), Deletion())
    )
    y = cohort["y"]
    assert torch.equal(raw(cohort).mask, y.observed)
    seen = y.observed
    assert torch.allclose(raw(cohort).tokens[..., 1][seen], y.times[seen])
    assert normalised(cohort).tokens[..., 1].max() <= 1
    assert deleted(cohort).tokens.shape[-1] == 1
    assert raw(cohort).tokens[..., 0][seen].mean().abs() < 1e-6
