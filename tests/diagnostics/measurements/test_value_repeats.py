"""Values that were copied from the visit before are found, and right ones pass."""

from types import SimpleNamespace

import numpy as np
import scipy.stats
import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.diagnostics.measurements.value_repeats import repeat_findings

NUM, VISITS, MEAN = 48, 8, 2.0
ROWS = np.repeat(np.arange(NUM), VISITS)


def counts(seed):
    rate = torch.full((NUM, VISITS), MEAN).double()
    return torch.poisson(rate, generator=torch.Generator().manual_seed(seed))


def findings_of(values):
    flat = values.flatten()
    frequencies = scipy.stats.poisson.pmf(np.arange(20), MEAN)
    residuals = SimpleNamespace(
        frequencies=torch.as_tensor(frequencies).expand(len(flat), -1),
        observed=flat,
        times=torch.arange(VISITS).double().repeat(NUM),
    )
    site = (torch.arange(NUM) % 4).double()
    times = torch.arange(VISITS).double().expand(NUM, -1)
    cohort = Cohort({"y": Series(times, values)}, covariates={"site": site})
    used, scores = torch.ones(len(flat), dtype=torch.bool), np.zeros((NUM, 1))
    return repeat_findings(ROWS, residuals, used, cohort, scores)


def test_copies_are_found_and_called_by_their_name():
    values = counts(1)
    values[::3, 5:] = values[::3, 4:5]
    found = findings_of(values)[0]
    assert found.p_value < 1e-3
    assert "values are equal to the one before, where" in found.words


def test_a_visit_that_is_there_twice_is_found():
    values = counts(2)
    values[::2, 3] = values[::2, 2]
    found = min(findings_of(values))
    assert found.p_value < 1e-4
    assert "at the time 3" in found.words


def test_a_visit_of_a_site_that_is_there_twice_is_found():
    values = counts(5)
    values[2::4, 1] = values[2::4, 0]
    found = min(findings_of(values))
    assert found.p_value < 1e-3
    assert "at the time 1, where site is 2" in found.words


def test_a_site_that_copies_is_found():
    values = counts(3)
    values[1::4, 1:] = values[1::4, :1]
    found = min(findings_of(values))
    assert found.p_value < 1e-6
    assert "where site is 1" in found.words


def test_p_values_of_right_counts_are_not_too_small():
    p_values = [x.p_value for seed in range(200) for x in findings_of(counts(100 + seed))]
    for level in (0.001, 0.01, 0.1):
        assert np.less(p_values, level).mean() <= level + 3 * (level / len(p_values)) ** 0.5
