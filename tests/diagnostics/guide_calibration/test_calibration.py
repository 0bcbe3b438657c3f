"""Ranks and intervals of simulated individuals, of a right and of a wrong guide."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate


@pytest.mark.slow
def test_corrected_ranks_are_uniform_and_intervals_cover(calibration):
    assert all(p > 0.005 for p in calibration.p_values().values())
    for level in (0.5, 0.9):
        error = (level * (1 - level) / 400) ** 0.5
        for share in calibration.coverage(level).values():
            assert abs(share - level) < 3.5 * error


@pytest.mark.slow
def test_calibration_sees_a_wrong_guide(linear, linear_guide):
    """A guide twice as wide: its raw ranks are not uniform, the corrected ranks are."""
    design = pa.Resample(linear)
    posterior = linear_guide.posterior
    last = posterior.flow.head
    bias = last.bias.clone()
    try:
        last.bias[2:4] -= 0.8
        wrong = calibrate(linear_guide, design, num_individuals=400, num_draws=400, seed=3)
    finally:
        last.bias.copy_(bias)
    assert min(wrong.p_values(raw=True).values()) < 1e-4
    assert min(wrong.p_values().values()) > 0.001


def test_raw_and_corrected_differ_only_by_weights(calibration):
    assert calibration.ranks.shape == calibration.raw_ranks.shape
    assert calibration.ranks.max() <= 99
    assert torch.isfinite(calibration.levels).all()
