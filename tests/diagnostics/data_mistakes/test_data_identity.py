"""Duplicates, shared values and constant series are named; data that repeat by design are not."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import datasets
from pyro_amortized.diagnostics.data_mistakes.data_identity import _other_codes, identity_checks

GENERATOR = torch.Generator().manual_seed(4)
VALUES = (5 + torch.randn(12, 5, generator=GENERATOR)).double()
TIMES = torch.arange(5.0).expand(12, 5)


def words_of(values, times=TIMES, observed=None):
    observed = torch.ones(values.shape, dtype=torch.bool) if observed is None else observed
    (check,) = identity_checks(pa.Cohort({"y": pa.Series(times, values, observed)}))
    assert check.about == "model"
    return check.words if check.status == "look" else ""


def duplicated():
    values = VALUES.clone()
    values[7] = values[2]
    return values


def shared():
    values = VALUES.clone()
    values[4, :3] = values[9, 1:4]
    return values


def constant():
    values = VALUES.clone()
    values[3] = 4.2
    return values


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (duplicated(), "individuals 3, 8 have the same times and values of 'y'"),
        (shared(), "individuals 5 and 10 share 3 values of 'y'"),
        (constant(), "all values of 'y' are the same for 4"),
    ],
    ids=["duplicated", "shared", "constant"],
)
def test_findings_are_named(values, expected):
    assert expected in words_of(values)


def test_a_record_that_occurs_twice_is_named():
    times = TIMES.clone()
    times[5, 3] = times[5, 2]
    values = VALUES.clone()
    values[5, 3] = values[5, 2]
    assert "recorded twice at one time for 6" in words_of(values, times)
    values[5, 3] += 1.0  # two samples at one time
    assert words_of(values, times) == ""


@pytest.mark.parametrize("name", ["right", "counts", "limits", "short", "missing"])
def test_data_that_repeat_by_design_are_not_named(name):
    values, observed = VALUES.clone(), torch.ones(12, 5, dtype=torch.bool)
    if name == "counts":
        values = values.round().clamp(4, 6)
    elif name == "limits":
        values = values.clamp(min=5.123)
    elif name == "short":
        values[3], observed[3, 2:] = values[2], False
        observed[2, 2:] = False
    elif name == "missing":
        observed[:] = False
        observed[0] = True
    assert words_of(values, observed=observed) == ""


def test_values_that_agree_by_chance_are_not_named():
    """Two individuals of theophylline share three values of three digits."""
    for name in ("theophylline", "warfarin", "phenobarbital", "indometh", "orange"):
        (check,) = identity_checks(getattr(datasets, name)())
        assert check.status == "passed", check.words
    rounded = VALUES.mul(100).round() / 100
    assert words_of(rounded) == ""
    rounded[4] = torch.cat([rounded[0, 1:], rounded[0, :1] + 0.01])
    assert "share 4 values" in words_of(rounded)


def test_a_covariate_that_was_filled_in_is_named():
    num = len(VALUES)
    weight = 70 + torch.linspace(-20.3, 31.7, num)
    filled = torch.where(torch.arange(num) % 2 == 0, 70.0, weight)
    rounded = weight.div(30).round() * 30  # equal values, but of all individuals

    def words_with(covariate):
        cohort = pa.Cohort({"y": pa.Series(TIMES, VALUES)}, covariates={"weight": covariate})
        (check,) = identity_checks(cohort)
        return check.words if check.status != "passed" else ""

    assert "'weight' is 70" in words_with(filled)
    assert words_with(weight) == ""
    assert words_with(rounded) == ""
    below = torch.where(torch.arange(num) % 2 == 0, 40.0, weight)  # a limit of quantification
    assert words_with(below) == ""


def test_codes_for_unknown_covariates_are_named():
    generator = torch.Generator().manual_seed(6)
    weight = 70 * torch.exp(0.2 * torch.randn(30, generator=generator)).double()
    values = (5 + torch.randn(30, 5, generator=generator)).double()

    def words_with(covariate):
        series = {"y": pa.Series(torch.arange(5.0).expand(30, 5), values)}
        (check,) = identity_checks(pa.Cohort(series, covariates={"weight": covariate}))
        return check.words if check.status == "look" else ""

    assert words_with(weight) == ""
    for code in (999.0, 0.0, -9.0):
        wrong = weight.clone()
        wrong[[3, 8]] = code
        assert f"'weight' is {code:g} for 4, 9" in words_with(wrong)
    grams = weight.clone()
    grams[5] *= 1000
    assert "for 6" in words_with(grams)
    # Codes that are possible values, and a count with many zeros, are none.
    assert words_with(weight + 30 * torch.rand(30, generator=generator)) == ""
    assert words_with((torch.arange(30) % 9).double()) == ""
    assert "unknown" not in words_with(torch.cat([torch.zeros(10).double(), weight[10:] / 20]))
    skewed = torch.exp(torch.randn(30, generator=generator)).double()
    skewed[3] = 7 * skewed.max()
    assert words_with(skewed) == ""


def test_a_site_that_codes_otherwise_is_named():
    generator = torch.Generator().manual_seed(2)
    sex = torch.randint(2, (40,), generator=generator).double()
    site = (torch.arange(40) % 3).double()
    values = torch.randn(40, 3, generator=generator).double()
    times = torch.arange(3).double().expand(40, -1)

    def words(sex):
        cohort = pa.Cohort({"y": pa.Series(times, values)}, covariates={"sex": sex, "site": site})
        return identity_checks(cohort)[0].words

    assert "the covariate 'sex' has the values 1, 2 where site is 1" in words(sex + (site == 1))
    assert "coded otherwise" not in words(sex)


def test_levels_that_differ_by_chance_are_rarely_called_another_code():
    """Ten scores and flags of 24 individuals, of which small groups lack rare levels."""
    found = 0
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(10, 24, generator=generator).double()
        columns = [
            x.mul(1.2).add(2).clamp(0, 4).round() if k % 2 else x.gt(0.8).double()
            for k, x in enumerate(z)
        ]
        covariates = {f"x{k}": x for k, x in enumerate(columns)}
        cohort = pa.Cohort(
            {"y": pa.Series(torch.zeros(24, 1), torch.zeros(24, 1))}, covariates=covariates
        )
        found += any("coded otherwise" in x for x in _other_codes(cohort))
    assert found <= 5


def test_a_negative_number_among_few_positive_ones_is_no_code():
    values, times = torch.randn(9, 3).double(), torch.arange(3).double().expand(9, -1)
    score = torch.tensor([-0.52, 0.23, 0.4, 0.8, 0.95, 1.1, 1.2, 1.5, 1.72])
    series = {"y": pa.Series(times, values)}
    (check,) = identity_checks(pa.Cohort(series, covariates={"score": score}))
    assert check.status == "passed"
    weight = torch.tensor([-70.0, 65.0, 71.0, 80.0, 77.0, 59.0, 68.0, 90.0, 73.0])
    (check,) = identity_checks(pa.Cohort(series, covariates={"weight": weight}))
    assert "the covariate 'weight' is -70" in check.words
