"""The checks of a guide detect what is wrong with it."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import diagnose, influence
from pyro_amortized.diagnostics.guide_calibration.guide_checks import rank_checks
from tests.exact import linear_program

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


@pytest.mark.slow
def test_an_undertrained_guide_is_flagged(linear):
    options = pa.TrainingOptions(max_epochs=1, batch_size=256, learning_rate=1e-6)
    guide = pa.train(
        linear_program, linear, num_simulations=600, seed=1, options=options, progress=False
    )
    diagnosis = diagnose(guide, linear, num_individuals=150, num_draws=300, seed=1)
    assert diagnosis.status("efficiency of the guide") == "look"
    assert "train it longer" in str(diagnosis)
    assert diagnosis.status("ranks, corrected") != "failed"


@pytest.mark.slow
def test_a_parameter_that_the_simulator_ignores_is_flagged(linear):
    def idle(cohort):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, 0.5).to_event(1))
            y = cohort["y"]
            prediction = phi[..., :1] + phi[..., 1:2] * y.times
            distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", distribution, obs=y.values)

    options = pa.TrainingOptions(max_epochs=2, batch_size=256)
    guide = pa.train(idle, linear, num_simulations=8000, seed=1, options=options, progress=False)
    diagnosis = diagnose(guide, linear, num_individuals=120, num_draws=300, seed=1)
    assert diagnosis.status("influence of parameters") == "failed"
    assert "phi[2]" in diagnosis.verdict
    moves = influence(guide, pa.Resample(linear), seed=1)
    assert moves["phi[2]"] == 0.0
    assert min(moves[n] for n in ("phi[0]", "phi[1]", "sigma")) > 0.05


def test_nothing_softens_the_ranks_of_a_likelihood_free_fit(calibrations):
    """A biased guide: a note where the density corrects it, a failure where nothing does."""
    right = calibrations(0.0)
    biased = replace(right, raw_ranks=right.raw_ranks.clamp(min=int(right.raw_ranks.max()) - 1))
    assert all(c.status != "failed" for c in rank_checks(biased) if "raw guide" in c.name)
    without = rank_checks(biased, corrected=False)
    assert next(c for c in without if c.name == "ranks, raw guide").status == "failed"
    unknown = replace(biased, ess=torch.full_like(biased.ess, torch.nan))
    assert any(c.status == "failed" for c in rank_checks(unknown))
