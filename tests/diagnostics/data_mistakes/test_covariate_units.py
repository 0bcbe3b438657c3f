"""Covariates of a site or of a few individuals in another unit are named; long tails are not."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics.data_mistakes.covariate_units import covariate_units

NUM = 48
SITE = (torch.arange(NUM) % 4).double()


def words_of(values, group=SITE):
    zeros = torch.zeros(NUM, 1).double()
    covariates = {"lab": values, "site": group}
    found = list(covariate_units(pa.Cohort({"y": pa.Series(zeros, zeros)}, covariates=covariates)))
    return "; ".join(found)


def normal(seed=1):
    return torch.randn(NUM, generator=torch.Generator().manual_seed(seed)).double()


def test_another_unit_of_a_site_is_named():
    creatinine = (0.25 * normal()).exp()
    wrong = torch.where(SITE == 2, 88.4 * creatinine, creatinine)
    assert "where site is 2 and" in words_of(wrong)
    assert words_of(creatinine) == ""


def test_weights_without_the_decimal_point_are_named():
    weight = 70 * (0.15 * normal()).exp()
    weight[[4, 17, 30]] *= 10
    assert "for 3 individuals (5, 18, 31)" in words_of(weight)
    weight[[4, 17, 30]] /= 100
    assert "for 3 individuals (5, 18, 31)" in words_of(weight)


def test_ages_in_months_are_named():
    age = torch.linspace(22, 70, NUM).double()
    age[[4, 17, 30, 41]] *= 12
    assert "for 4 individuals (5, 18, 31, 42)" in words_of(age)


@pytest.mark.parametrize("spread", [0.2, 1.0, 2.0, 4.0])
def test_right_covariates_are_not_named(spread):
    for seed in range(50):
        assert words_of((spread * normal(seed)).exp()) == ""


def test_a_site_of_children_and_doses_of_arms_are_designs():
    weight = 70 * (0.1 * normal()).exp()
    assert words_of(torch.where(SITE == 1, weight / 4, weight)) == ""
    assert words_of(10**SITE * (1 + 0.01 * normal().abs())) == ""
