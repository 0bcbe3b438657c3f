"""Yes/no covariates that one site never filled in are named; differences by design are not."""

import numpy as np
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics.data_mistakes.default_covariates import default_covariates

NUM = 60
SITE = torch.arange(NUM) % 4


def cohort_of(categories=None, **covariates):
    zeros = torch.zeros(NUM, 1).double()
    own = {n: x.double() for n, x in covariates.items()}
    return pa.Cohort({"y": pa.Series(zeros, zeros)}, covariates=own, categories=categories or {})


def half(seed=1):
    return torch.rand(NUM, generator=torch.Generator().manual_seed(seed)) < 0.5


def test_a_column_that_a_site_never_filled_in_is_named():
    smoker = half() & (SITE != 2)
    (words,) = default_covariates(cohort_of(smoker=smoker, site=SITE))
    assert "the covariate 'smoker' is 0 for all 15 individuals where site is 2" in words
    named = cohort_of({"smoker": ("no", "yes")}, smoker=smoker, site=SITE)
    assert "is no for all 15" in next(default_covariates(named))


@pytest.mark.parametrize(
    "covariates",
    [
        {"pregnant": half() & (SITE % 2 == 0), "female": SITE % 2 == 0},
        {"arm": SITE >= 2, "site": SITE},
        {"smoker": half(), "site": SITE},
        {"women": half() | (SITE == 2), "site": SITE},
        {"rare": torch.arange(NUM) % 20 == 0, "site": SITE},
    ],
    ids=["a condition of women", "arms of sites", "filled in", "a site of women", "rare"],
)
def test_columns_that_differ_by_design_are_not(covariates):
    assert list(default_covariates(cohort_of(**covariates))) == []


def test_columns_that_were_filled_in_are_rarely_named():
    found = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        site = torch.as_tensor(rng.integers(5, size=NUM))
        flags = {f"x{k}": torch.as_tensor(rng.random(NUM) < 0.3) for k in range(4)}
        found += bool(list(default_covariates(cohort_of(site=site, **flags))))
    assert found <= 9  # the level is one in a hundred
