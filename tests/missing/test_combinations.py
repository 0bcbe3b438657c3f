import pytest

from pyro_amortized import Cohort
from pyro_amortized.missing import (
    AllOf,
    Dropout,
    NumberMissing,
    OneOf,
    OnlySeries,
)
from pyro_amortized.runtime.random_numbers import make_generator
from tests.missing.kit import complete, recorded


def test_mechanisms_combine():
    both = recorded(AllOf((Dropout(4), NumberMissing(1, 1))))
    assert both.sum(1).unique().tolist() == [3, 4, 5, 6, 7]
    either = recorded(OneOf((NumberMissing(8, 8), NumberMissing(0, 0)), (1.0, 3.0)))
    assert either.all(1).double().mean() == pytest.approx(0.75, abs=0.04)
    cohort = Cohort({"y": complete()["y"], "z": complete()["y"]})
    masked = OnlySeries(("y",), NumberMissing(8, 8))(cohort, make_generator(0))
    assert not masked["y"].observed.any()
    assert masked["z"].observed.all()
