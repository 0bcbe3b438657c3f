"""Hazards of groups with another course are found, and p-values of the same course are uniform."""

import numpy as np
import scipy.stats
import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.diagnostics.events.event_shapes import common_course, hazard_findings

NUM = 48
ROWS = np.arange(NUM)


def cohort_of(**covariates):
    zeros = torch.zeros(NUM, 1).double()
    return Cohort({"y": Series(zeros, zeros)}, covariates=covariates)


def hazards(rng, power, end=2.0):
    """Cumulative hazards of events until an end, of which some are in an interval."""
    event = rng.exponential(size=NUM) ** (1 / power)
    lower = np.minimum(event, end)
    upper = np.where(event < end, lower, np.inf)
    inside = (ROWS % 5 == 0) & (event < end)
    start = np.floor(lower * 4) / 4
    return np.where(inside, start, lower), np.where(inside, start + 0.25, upper)


def test_a_group_with_a_steep_hazard_is_found():
    group = torch.as_tensor(ROWS % 2).double()
    lower, upper = hazards(np.random.default_rng(1), np.where(ROWS % 2, 4.0, 1.0))
    (size, found, other_size, order) = hazard_findings(
        lower, upper, ROWS, cohort_of(group=group), ("a", "b")
    )
    assert found.p_value < 1e-5
    assert "differs where group is 1" in found.words
    assert min(size.p_value, other_size.p_value, order.p_value) > 0.001


def test_a_site_with_a_larger_hazard_is_found():
    site = torch.as_tensor(ROWS % 4).double()
    lower, upper = hazards(np.random.default_rng(3), 1.0)
    factor = np.where(ROWS % 4 == 2, 0.07, 1.0)
    found = min(
        hazard_findings(factor * lower, factor * upper, ROWS, cohort_of(site=site), ("a", "b"))
    )
    assert found.p_value < 1e-4
    assert "earlier" in found.words
    assert "where site is 2 than elsewhere" in found.words


def test_p_values_of_the_same_hazard_are_not_too_small():
    rng, p_values = np.random.default_rng(2), []
    for _ in range(300):
        site = torch.as_tensor(rng.integers(0, 3, NUM)).double()
        found = hazard_findings(*hazards(rng, 1.0), ROWS, cohort_of(site=site), ("a", "b"))
        p_values += [x.p_value for x in found]
    for level in (0.01, 0.1):
        assert np.less(p_values, level).sum() <= scipy.stats.binom.ppf(0.9995, 1200, level)
    assert np.less(p_values, 0.5).mean() > 0.3  # three levels have the factor of Bonferroni


def test_a_hazard_that_rises_is_found():
    """The power of the largest distance of the survival curves was 0.2 at this level."""
    rng = np.random.default_rng(4)
    found = [common_course(*hazards(rng, 2.0)) for _ in range(40)]
    exponents, p_values = np.array(found).T
    assert (p_values < 0.001).mean() >= 0.8
    assert 1.7 < exponents.mean() < 2.4


def test_p_values_of_a_right_course_are_uniform():
    rng = np.random.default_rng(5)
    p_values = [common_course(*hazards(rng, 1.0))[1] for _ in range(500)]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.001
