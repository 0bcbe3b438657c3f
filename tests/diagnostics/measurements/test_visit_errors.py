"""Groups that deviate at single visits are found, and p-values of right ones are not too small."""

import numpy as np
import scipy.stats
import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.diagnostics.measurements.visit_errors import visit_findings

NUM, WIDTH = 48, 7
ROWS = np.repeat(np.arange(NUM), WIDTH)
TIMES = np.tile(np.array([0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0]), NUM)


def cohort_of(site):
    zeros = torch.zeros(NUM, 1).double()
    return Cohort({"y": Series(zeros, zeros)}, covariates={"site": torch.as_tensor(site).double()})


def found(errors, site, times=TIMES):
    return visit_findings(ROWS, times, errors.ravel(), cohort_of(site))


def test_a_box_of_samples_of_a_site_is_named():
    rng, site = np.random.default_rng(1), np.arange(NUM) % 4
    errors = rng.standard_normal((NUM, WIDTH))
    errors[site == 2, 4] -= 2.5
    of_site, of_half = found(errors, site)
    assert of_site.p_value < 1e-4
    assert "values at times of about 8 are lower than the model says where site is 2" in (
        of_site.words
    )
    assert of_half.p_value > 0.01


def test_a_box_of_samples_of_half_of_the_file_is_named_at_real_times():
    rng = np.random.default_rng(2)
    errors = rng.standard_normal((NUM, WIDTH))
    errors[NUM // 2 :, 2] += 1.8
    times = TIMES * (1 + 0.02 * rng.standard_normal(NUM * WIDTH))
    of_half = found(errors, np.zeros(NUM), times)[-1]
    assert of_half.p_value < 1e-4
    assert "are higher than the model says where the half of the file is second" in of_half.words


def test_p_values_of_right_errors_are_not_too_small():
    rng, p_values = np.random.default_rng(3), []
    for _ in range(800):
        errors = rng.standard_normal((NUM, WIDTH)).round(rng.integers(0, 3))
        p_values += [x.p_value for x in found(errors, rng.integers(4, size=NUM))]
    for level in (0.002, 0.01, 0.1):
        assert np.less(p_values, level).sum() <= scipy.stats.binom.ppf(0.9995, 1600, level)
    assert np.less(p_values, 0.4).mean() > 0.2
