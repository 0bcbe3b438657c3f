import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import SettingError

PLAN = nlme.regimen(100, 12, 2)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (pa.Target.auc(low=1), 12.0 * 2),
        (pa.Target.average(low=1), 2.0),
        (pa.Target.peak(low=1), 2.0),
        (pa.Target.trough(low=1), 2.0),
        (pa.Target.smallest(low=1), 2.0),
        (pa.Target.concentration(3, low=1), 2.0),
        (pa.Target.time_above(1.5, low=0.5), 1.0),
        (pa.Target.time_above(2.5, low=0.5), 0.0),
    ],
)
def test_metrics_of_a_constant(target, value):
    times, metric = target.nodes(PLAN)
    assert metric(torch.full((3, len(times)), 2.0).double()).tolist() == pytest.approx([value] * 3)


def test_ranges():
    target = pa.Target.trough(10, 20)
    assert target.inside(torch.tensor([5.0, 15.0, 25.0])).tolist() == [False, True, False]
    assert target.label == "trough between 10 and 20"
    assert pa.Target.auc(high=3).label == "auc at most 3"
    assert pa.Target.concentration(2, value=3).label == "concentration at 2 near 3"
    assert pa.Target.time_above(4, low=0.5).label == "share of the time above 4 at least 0.5"


def test_what_is_no_target():
    with pytest.raises(SettingError, match="neither a range nor a value"):
        pa.Target.auc()
    with pytest.raises(SettingError, match="from 3 to 2"):
        pa.Target.auc(3, 2)
    with pytest.raises(SettingError, match="`at` is '3'"):
        pa.Target.concentration("3", low=1)
    with pytest.raises(SettingError, match="`low` is 50 for the share of the time above 4"):
        pa.Target.time_above(4, low=50)
