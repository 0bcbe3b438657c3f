import pytest
import torch

from pyro_amortized import nlme
from pyro_amortized.errors import SettingError


def test_loading_dose_and_infusions():
    doses = nlme.regimen(100, 12, 3, 0.5, loading=250, compartment=2, start=6).doses(2)
    assert doses.times.tolist() == [[6.0, 18.0, 30.0]] * 2
    assert doses.amounts.tolist() == [[250.0, 100.0, 100.0]] * 2
    assert doses.durations.tolist() == [[0.5] * 3] * 2
    assert doses.compartment.tolist() == [[2] * 3] * 2
    assert not doses.has_events


def test_a_steady_state_is_one_of_nonmems_records():
    doses = nlme.regimen(100, 24, 2, steady_state=True).doses(1)
    assert doses.steady_state.tolist() == [[1, 0]]
    assert doses.intervals.tolist() == [[24.0, 0.0]]


def test_amounts_per_unit_of_a_covariate_from_a_start_of_each_individual():
    weight = torch.tensor([50.0, 80.0])
    start = torch.tensor([10.0, 20.0])
    plan = nlme.regimen(2, 12, 2, per="weight")
    doses = plan.doses(2, {"weight": weight}, start=start, factor=torch.tensor([1.0, 0.5]))
    assert doses.amounts.tolist() == [[100.0, 100.0], [80.0, 80.0]]
    assert doses.times.tolist() == [[10.0, 22.0], [20.0, 32.0]]
    with pytest.raises(SettingError, match="a covariate that the individuals lack"):
        plan.doses(2, {"age": weight})


def test_regimens_add_in_the_order_of_time():
    both = nlme.regimen(100, 12, 2) + nlme.regimen(20, start=4, compartment=2)
    assert both.times == (0.0, 4.0, 12.0)
    assert both.amounts == (100.0, 20.0, 100.0)
    assert both.compartments == (1, 2, 1)
    with pytest.raises(SettingError, match="same unit"):
        both + nlme.regimen(1, per="weight")


def test_scaling_keeps_the_proportion_of_the_loading_dose():
    plan = nlme.regimen(100, 12, 3, loading=200).with_amount(50)
    assert plan.amounts == (100.0, 50.0, 50.0)
    assert plan.end == 36.0
    steady = plan.at_steady_state()
    assert steady.amounts == (50.0,)
    assert steady.steady_state == (True,)
    with pytest.raises(SettingError, match="amount 0"):
        nlme.regimen(0.0, 12, 2).with_amount(3.0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((100,), {"num": 3}, "no dosing interval"),
        ((100,), {"steady_state": True}, "no dosing interval"),
        ((100, 12), {"steady_state": True, "loading": 200}, "A loading dose and a steady state"),
        ((-1,), {}, "`amount` is -1"),
        ((100, 0, 2), {}, "`interval` is 0"),
        ((100, 12, 2.5), {}, "`num` is 2.5"),
    ],
)
def test_what_is_no_regimen(arguments, options, message):
    with pytest.raises(SettingError, match=message):
        nlme.regimen(*arguments, **options)
    with pytest.raises(SettingError, match="no dosing interval"):
        nlme.regimen(100).at_steady_state()
