"""Hazards of groups with another course are found, and p-values of the same course are uniform."""

import numpy as np
import scipy.stats
import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.diagnostics.event_shapes import shape_findings

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
    (found, order) = shape_findings(lower, upper, ROWS, cohort_of(group=group), "advice")
    assert found.p_value < 1e-5
    assert "differs where group is 1" in found.words
    assert order.p_value > 0.001


def test_p_values_of_the_same_hazard_are_uniform():
    rng, p_values = np.random.default_rng(2), []
    for _ in range(300):
        site = torch.as_tensor(rng.integers(0, 3, NUM)).double()
        found = shape_findings(*hazards(rng, 1.0), ROWS, cohort_of(site=site), "advice")
        p_values += [x.p_value for x in found]
    for level in (0.01, 0.1, 0.5):
        low, high = scipy.stats.binom.ppf([0.0005, 0.9995], len(p_values), level)
        assert low <= np.less(p_values, level).sum() <= high * 1.2
