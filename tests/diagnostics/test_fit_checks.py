"""The checks of a fit detect a wrong model."""

import warnings

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import diagnose
from tests.exact import TRUTH, linear_cohort, linear_program


@pytest.mark.slow
def test_a_wrong_residual_error_is_flagged(linear_guide):
    """Errors that grow with the prediction, fitted as if they were equal."""
    cohort = linear_cohort(num=60, width=8, missing=0.0, seed=3)
    generator = torch.Generator().manual_seed(0)
    phi = TRUTH["mean"] + TRUTH["omega"] * torch.randn(60, 2, generator=generator).double()
    clean = phi[:, :1] + phi[:, 1:] * cohort["y"].times
    noise = torch.randn(60, 8, generator=generator).double()
    cohort = cohort.with_values({"y": clean + 0.35 * clean.abs() * noise})
    with warnings.catch_warnings():  # more values than in training
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(linear_program, cohort, guide=linear_guide, num_draws=500, seed=1)
    diagnosis = diagnose(fit, num_individuals=120, num_draws=300, seed=1)
    assert diagnosis.status("residuals of y") == "failed"
    assert "spread over predictions" in diagnosis.verdict
