"""What is trained on, with which networks, where."""

import joblib
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import TrainingError
from pyro_amortized.training.simulation_plan import _workers
from tests.exact import TRUTH
from tests.small import QUICK, train


@pytest.mark.slow
def test_bad_requests(linear):
    with pytest.raises(TrainingError, match="seed"):
        train(linear, seed=1.5)
    with pytest.raises(TrainingError, match="device"):
        pa.TrainingOptions(device="abacus")
    with pytest.raises(TrainingError, match="not finite"):
        pa.train(_hopeless, linear, num_simulations=500, options=QUICK, progress=False)


def _hopeless(cohort):
    with pyro.plate("individual", len(cohort)):
        slope = pyro.sample("slope", dist.Normal(-9.0, 1.0))
        y = cohort["y"]
        distribution = (
            dist.Normal(slope.sqrt()[..., None] * y.times, 1.0).mask(y.observed).to_event(1)
        )
        pyro.sample("y", distribution, obs=y.values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_a_gpu(linear):
    options = pa.TrainingOptions(max_epochs=2, batch_size=128, device="cuda")
    guide = train(linear, options=options)
    assert guide.history.validation_loss[-1] < guide.history.validation_loss[0]
    assert guide.posterior.flow.loc.device.type == "cpu"


def test_a_training_that_learns_nothing_is_an_error(linear):
    options = pa.TrainingOptions(max_epochs=1, batch_size=128, learning_rate=1e38, warmup=0)
    with pytest.raises(TrainingError, match="never finite"):
        train(linear, options=options)


def test_workers_asked_for_go_before_those_of_joblib():
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert _workers(pa.TrainingOptions(num_workers=0), 1e9).num_workers == 0
        assert _workers(pa.TrainingOptions(), 0.0).num_workers == 2


@pytest.mark.slow
def test_with_nothing_recorded_the_answer_is_the_population(linear):
    """Within what a short training gives: moments of the guide for empty data."""
    guide = train(linear, num_simulations=6000, options=pa.TrainingOptions(max_epochs=6))
    empty = linear.with_observed({"y": torch.zeros_like(linear["y"].observed)})
    torch.manual_seed(0)
    draws = guide.individual_posterior(empty, TRUTH).sample((2000,))
    sd = TRUTH["omega"]
    assert ((draws.mean((0, 1)) - TRUTH["mean"]).abs() < 0.3 * sd).all()
    assert ((draws.std(0).mean(0) / sd).log().abs() < 0.25).all()
