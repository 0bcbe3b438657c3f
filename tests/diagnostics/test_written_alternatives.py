"""Alternatives to what is written change what they say, and nothing that is implausible."""

import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics.written_alternatives import written_alternatives
from tests.diagnostics.linear_weights import right_cohort, with_covariates


def of_kind(cohort, kind, used=("weight",), series=("y",)):
    found = written_alternatives(cohort, used, series)
    return [a for a in found if a.kind == kind]


def test_units_that_no_other_individual_would_have_are_none():
    cohort = right_cohort(2)
    weight = cohort.covariates["weight"].clone()
    weight[:5] = 70.0
    weight[3] = 70.0 * 2.2046
    found = of_kind(with_covariates(cohort, weight=weight), "the unit of weight")
    (pounds,) = [a for a in found if "2.2046 times too large" in a.words]
    assert 3 in pounds.rows.tolist()
    place = pounds.rows.tolist().index(3)
    torch.testing.assert_close(
        pounds.cohort.covariates["weight"][place], torch.tensor(70.0).double()
    )
    assert not [a for a in found if "1000 times" in a.words]
    assert of_kind(cohort, "the unit of weight", used=()) == []


def test_levels_of_a_used_group_are_changed():
    cohort = right_cohort(2)
    found = of_kind(cohort, "the level of site", used=("site",))
    assert len(found) == 3
    for level, alternative in enumerate(found):
        assert bool((cohort.covariates["site"][alternative.rows] != level).all())
        assert bool((alternative.cohort.covariates["site"] == level).all())


def test_the_two_levels_of_a_group_are_exchanged():
    cohort = right_cohort(2)
    arm = (torch.arange(len(cohort)) % 2).double() + 1
    (other,) = of_kind(with_covariates(cohort, arm=arm), "the level of arm", used=("arm",))
    torch.testing.assert_close(other.cohort.covariates["arm"], 3 - arm)


def test_samples_and_individuals_are_exchanged():
    cohort = right_cohort(2)
    (reversed_order,) = of_kind(cohort, "order")
    torch.testing.assert_close(
        reversed_order.cohort["y"].values, cohort["y"].values[reversed_order.rows].flip(1)
    )
    assert len(of_kind(cohort, "samples")) == 10
    (pairs,) = of_kind(cohort, "exchanged covariates")
    assert len(pairs.rows) == len(cohort) * (len(cohort) - 1)
    weight = cohort.covariates["weight"]
    torch.testing.assert_close(pairs.cohort.covariates["weight"], weight[pairs.partners])
    torch.testing.assert_close(pairs.cohort["y"].values, cohort["y"].values[pairs.rows])


def test_doses_and_clocks():
    doses = pa.Doses(
        times=torch.tensor([[0.0, 24.0, 48.0], [0.0, 24.0, 0.0]]),
        amounts=torch.tensor([[100.0, 100.0, 100.0], [50.0, 50.0, 0.0]]),
        given=torch.tensor([[True, True, True], [True, True, False]]),
    )
    times = torch.tensor([[1.0, 50.0, 60.0], [0.5, 26.0, 30.0]])
    cohort = pa.Cohort({"y": pa.Series(times, torch.rand(2, 3))}, doses)
    found = of_kind(cohort, "doses", used=())
    (missed,) = [a for a in found if a.words == "the last dose was not taken"]
    assert missed.cohort.doses.given.tolist() == [[True, True, False], [True, False, False]]
    (ten,) = [a for a in found if "10 times too small" in a.words]
    torch.testing.assert_close(ten.cohort.doses.amounts, 10 * doses.amounts)
    (early,) = [a for a in of_kind(cohort, "times", used=()) if "1 too late" in a.words]
    assert early.rows.tolist() == [0]  # the other one would have a value before its first dose
    torch.testing.assert_close(early.cohort["y"].times, times[:1] - 1)
