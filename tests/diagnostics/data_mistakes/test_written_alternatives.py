"""Alternatives to what is written change what they say, and nothing that is implausible."""

import itertools
import math

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics.data_mistakes.written_alternatives import written_alternatives
from pyro_amortized.diagnostics.data_mistakes.written_exchanges import (
    likely_pairs,
    written_exchanges,
)
from tests.diagnostics.linear_weights import right_cohort, with_covariates


def of_kind(cohort, kind, used=("weight",), series=("y",)):
    found = [*written_alternatives(cohort, used), *written_exchanges(cohort, used, series)]
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
    (last,) = [a for a in of_kind(cohort, "times", used=()) if "the last dose" in a.words]
    moved = times + torch.tensor([[48.0], [24.0]])
    torch.testing.assert_close(last.cohort["y"].times, moved)


def test_values_of_neighbours_are_exchanged_from_a_visit_on():
    cohort = right_cohort(2)
    found = of_kind(cohort, "values of neighbours")
    width = cohort["y"].values.shape[1]
    assert len(found) == 2 * width - 1
    (third,) = [a for a in found if "from value 3 on" in a.words]
    values, partners = cohort["y"].values, third.partners
    assert bool(((partners - third.rows).abs() == 1).all())
    torch.testing.assert_close(third.cohort["y"].values[:, :2], values[third.rows][:, :2])
    torch.testing.assert_close(third.cohort["y"].values[:, 2:], values[partners][:, 2:])


def test_covariates_of_the_next_row():
    cohort = right_cohort(2)
    above, below = of_kind(cohort, "rows")
    weight = cohort.covariates["weight"]
    torch.testing.assert_close(above.cohort.covariates["weight"][:-1], weight[1:])
    torch.testing.assert_close(below.cohort.covariates["weight"][1:], weight[:-1])


def test_the_most_likely_pairs_are_those_of_all_sets():
    """Against every set of disjoint pairs of seven individuals."""
    generator = torch.Generator().manual_seed(4)
    gain = 3 * torch.randn(7, generator=generator).double()
    gain[-1] = -torch.inf

    def value(chosen, share):
        log_prior, i = 0.0, 0
        while i < 6:
            log_prior += math.log(share if i in chosen else 1 - share)
            i += 2 if i in chosen else 1
        return float(gain[list(chosen)].sum()) + log_prior, log_prior

    sets = [
        s
        for size in range(4)
        for s in itertools.combinations(range(6), size)
        if all(b - a > 1 for a, b in itertools.pairwise(s))
    ]
    best = max(((*value(s, p), s) for s in sets for p in (0.1, 0.4)), key=lambda x: x[0])
    chosen, log_prior = likely_pairs(gain, (0.1, 0.4))
    assert tuple(chosen.tolist()) == best[2]
    assert log_prior == pytest.approx(best[1] - math.log(2))
