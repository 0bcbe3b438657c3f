"""Fixtures that several test modules of diagnostics share."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate
from tests.exact import linear_cohort, linear_program
from tests.small import train


@pytest.fixture(scope="session")
def calibrations(linear, linear_guide):
    """Calibrations of the linear guide by the share of missing values, computed when needed."""
    results = {}

    def calibration_of(share):
        if share not in results:
            design = pa.Resample(linear, pa.RandomMissing(share, share))
            results[share] = calibrate(
                linear_guide, design, num_individuals=400, num_draws=400, seed=5
            )
        return results[share]

    return calibration_of


@pytest.fixture(params=[0.0, 0.3, 0.6])
def calibration(request, calibrations):
    return calibrations(request.param)


@pytest.fixture(scope="session")
def weighted(linear_guide):
    """A fit of data with two covariates."""
    cohort = linear_cohort()
    covariates = {"dose": torch.arange(40.0).remainder(2), "age": torch.linspace(20, 60, 40)}
    cohort = pa.Cohort(dict(cohort.series), covariates=covariates)
    options = pa.TrainingOptions(max_epochs=2, batch_size=256)
    guide = train(cohort, num_simulations=4000, options=options)
    return pa.fit_population(linear_program, cohort, guide=guide, num_draws=300, seed=1)
