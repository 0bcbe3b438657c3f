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


def test_the_steady_state_of_two_doses_a_day_has_both():
    """Every dose of the last interval is repeated, backwards and until the end of the window."""
    plan = nlme.regimen(100, 24, 5) + nlme.regimen(50, 24, 5, start=8)
    assert (plan.interval, plan.last, plan.end) == (24.0, 96.0, 120.0)
    steady = plan.at_steady_state()
    assert steady.times == (-16.0, 0.0, 8.0)
    assert steady.amounts == (50.0, 100.0, 50.0)
    assert steady.steady_state == (True, True, False)
    assert steady.doses(1).steady_state.tolist() == [[1, 2, 0]]
    longer = nlme.regimen(100, 12, 5).at_steady_state(-6, 24)
    assert longer.times == (-12.0, 0.0, 12.0)
    assert longer.steady_state == (True, False, False)
    late = (nlme.regimen(300) + nlme.regimen(100, 24, 5, start=10)).at_steady_state()
    assert (late.times, late.amounts) == ((0.0,), (100.0,))


def test_steady_states_are_added_with_their_past():
    plan = nlme.regimen(100, 24, steady_state=True)
    plan += nlme.regimen(50, 24, start=8, steady_state=True)
    assert plan.times == (-16.0, 0.0, 8.0)
    assert plan.steady_state == (True, True, False)
    with pytest.raises(SettingError, match="with the interval 12 is added"):
        plan + nlme.regimen(50, 12, steady_state=True)


@pytest.mark.parametrize(
    ("first", "second", "interval"),
    [((1, 24, 2), (1, 12, 4), 24.0), ((1, 24, 2), (1,), 24.0), ((1, 24, 2), (1, 9, 2), None)],
)
def test_the_interval_of_two_regimens_is_that_after_which_both_repeat(first, second, interval):
    one, other = nlme.regimen(*first), nlme.regimen(*second)
    assert (one + other).interval == (other + one).interval == interval


def test_infinitely_many_doses_of_nothing_are_no_dose():
    plan = nlme.regimen(1, 24, steady_state=True)
    doses = plan.doses(2, factor=torch.tensor([0.0, 5.0]))
    assert doses.steady_state.tolist() == [[0], [1]]
    assert doses.amounts.tolist() == [[0.0], [5.0]]
    by_dose = nlme.regimen(1, 24, 2).doses(2, factor=torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert by_dose.amounts.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_labels_of_different_regimens_differ():
    plan = nlme.regimen(100, 12, 3)
    others = [
        nlme.regimen(100, 12, 3, 2.0),
        nlme.regimen(100, 12, 3, compartment=2),
        nlme.regimen(100, 12, 3, start=4),
        nlme.regimen(100, 12, 2) + nlme.regimen(100, start=30),
        nlme.regimen(100, 12, steady_state=True),
        nlme.regimen(100, 12, 2, 0.5) + nlme.regimen(100, start=24),
    ]
    labels = [x.label for x in (plan, *others)]
    assert len(set(labels)) == len(labels)
    assert others[0].label == "100 every 12, 3 doses, over 2"
