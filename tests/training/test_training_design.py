"""Which values of the simulated individuals are missing."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate
from pyro_amortized.training.training_design import training_design
from tests.exact import linear_program

TIMES = torch.linspace(0, 4, 6, dtype=torch.float64).expand(30, 6)
VALUES = torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
COMPLETE = pa.Cohort({"y": pa.Series(TIMES, 1 + VALUES)})


def program_without_masks(cohort):
    """The linear program for complete individuals."""
    mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mu, 1.0).to_event(1))
        y = cohort["y"]
        mean = phi[..., :1] + phi[..., 1:] * y.times
        pyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y.values)


def removed(design):
    """Number of values that a design removes."""
    cohort = design(200, torch.Generator().manual_seed(0))
    return int((~cohort["y"].observed).sum())


def test_a_program_with_masks_loses_values():
    structure = pa.read_structure(linear_program, COMPLETE)
    assert removed(training_design(structure, COMPLETE)) > 0


def test_a_program_without_masks_loses_none():
    structure = pa.read_structure(program_without_masks, COMPLETE)
    assert removed(training_design(structure, COMPLETE)) == 0
    design = pa.Resample(COMPLETE, pa.RandomMissing(0.3, 0.3))
    with pytest.raises(pa.AmortizedError, match="enter the density of 'y'"):
        training_design(structure, design)


@pytest.mark.slow
def test_a_guide_of_a_program_without_masks_is_sharpened_and_calibrated():
    """The Newton steps do not take placeholders for recorded values."""
    options = pa.TrainingOptions(max_epochs=4, batch_size=256)
    quick = {"options": options, "seed": 1, "progress": False}
    guide = pa.train(program_without_masks, COMPLETE, num_simulations=3000, **quick)
    sharp = pa.sharpen(guide, COMPLETE, num_simulations=3000, **quick)
    population = {"mu": torch.tensor([0.5, -0.5], dtype=torch.float64)}
    drawn = pa.sample_individuals(
        program_without_masks, COMPLETE, population, guide=sharp, seed=1, refine=False
    )
    assert (drawn.estimate.ess > 900).all()
    result = calibrate(sharp, COMPLETE, num_individuals=100, num_draws=200, progress=False)
    assert float(result.ess.median()) > 180
