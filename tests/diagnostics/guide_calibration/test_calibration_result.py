"""Summaries of a calibration: by group, by bins, depending on the data."""

from dataclasses import replace

import pytest

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate
from pyro_amortized.errors import TrainingError


def test_bins_must_divide_the_ranks(calibration):
    with pytest.raises(TrainingError, match="bins"):
        calibration.p_values(num_bins=7)


@pytest.mark.slow
def test_calibration_by_group(linear, linear_guide):
    design = pa.Resample(linear, pa.RandomMissing(0.0, 0.6))
    calibration = calibrate(linear_guide, design, num_individuals=400, num_draws=400, seed=1)
    sparse = calibration.where(calibration.share_missing > 0.4)
    assert 20 < len(sparse) < 390
    assert len(sparse.ess) == len(sparse) == len(sparse.truth)
    assert all(p > 1e-3 for p in sparse.uniform_p_values().values())
    assert calibration.tarp_p_value() > 1e-3
    assert min(calibration.local_p_values().values()) > 1e-3
    assert all(0 < x < 1 for x in calibration.contraction().values())
    rich = calibration.where(calibration.num_recorded >= 5)
    assert rich.contraction()["phi[1]"] > sparse.contraction()["phi[1]"]
    assert all(x > 0.5 for x in calibration.recovery().values())


@pytest.mark.slow
def test_errors_that_cancel_are_seen_locally(linear, linear_guide):
    """Levels are shifted up where the posterior mean is large and down where it is small."""
    calibration = calibrate(linear_guide, linear, num_individuals=400, num_draws=400, seed=1)
    shifted = (
        calibration.levels + 0.15 * (calibration.means - calibration.means.mean(0)).sign()
    ).clamp(0.001, 0.999)
    wrong = replace(calibration, levels=shifted)
    assert min(wrong.local_p_values().values()) < 1e-6
