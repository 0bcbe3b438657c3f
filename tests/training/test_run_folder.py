"""Runs that are interrupted, shared, watched, or given a time."""

import copy
import json
import os
import signal
import socket
import time

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedError, TrainingError
from pyro_amortized.missing import RandomMissing
from pyro_amortized.training import simulation_plan as plan
from tests import resumable
from tests.small import QUICK, train

pytestmark = pytest.mark.usefixtures("rough_training_distributions")


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


def stop_when(process, reached, sign):
    """Send a signal as soon as the condition holds; how the process ended."""
    begin = time.monotonic()
    while process.is_alive() and not reached() and time.monotonic() - begin < 500:
        time.sleep(0.005)
    if process.is_alive():
        os.kill(process.pid, sign)
    process.join(500)
    return process.exitcode


@pytest.mark.slow
def test_a_run_stopped_at_any_moment_ends_with_the_same_weights(tmp_path, monkeypatch):
    """kill -9 when the first simulations are written, Ctrl-C while it trains, kill -9 between two
    checkpoints: no hang, no half-written file of the stopped run in the way, the same weights.

    The moments are those of the run, not of the clock, which another process may delay. The whole
    run and the last part of the other one are in this process.
    """
    monkeypatch.setattr(plan, "SETTINGS", resumable.SHARDS)
    resumable.train(tmp_path / "whole", tmp_path / "a")
    torn, errors, stops = tmp_path / "torn", tmp_path / "errors.txt", []
    checkpoint, seen = torn / "checkpoint.safetensors", set()

    def several_checkpoints():
        seen.add(checkpoint.stat().st_mtime_ns)
        return len(seen) > 3

    for reached, sign in (
        (lambda: any((torn / "simulations").glob("shard-*.safetensors")), signal.SIGKILL),
        (checkpoint.exists, signal.SIGINT),
        (several_checkpoints, signal.SIGKILL),
    ):
        before = set(torn.rglob("*.part"))  # what kill -9 may have left half-written
        process = resumable.forked(resumable.train_apart, torn, tmp_path / "b", errors)
        stops.append(stop_when(process, reached, sign))
        if sign == signal.SIGINT:
            assert set(torn.rglob("*.part")) <= before
    killed, interrupted, killed_again = stops
    assert killed == killed_again == -signal.SIGKILL
    assert interrupted not in (0, None)
    assert "KeyboardInterrupt" in errors.read_text()
    assert not (tmp_path / "b").exists()
    resumable.train(torn, tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.slow
def test_two_processes_may_write_one_store(tmp_path, monkeypatch):
    """The same run twice at once, in one folder: both end, with the same weights."""
    store = tmp_path / "store"
    other = resumable.forked(resumable.train_apart, store, tmp_path / "a", tmp_path / "errors.txt")
    begin = time.monotonic()
    while not store.exists() and other.is_alive() and time.monotonic() - begin < 500:
        time.sleep(0.005)
    assert other.is_alive()
    monkeypatch.setattr(plan, "SETTINGS", resumable.SHARDS)
    resumable.train(store, tmp_path / "b")
    other.join(500)
    assert other.exitcode == 0
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def same_weights(one, other):
    first, second = one.posterior.state_dict(), other.posterior.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_memory_folder_and_workers_give_the_same_weights(linear, tmp_path):
    memory = train(linear)
    workers = pa.TrainingOptions(
        max_epochs=2, batch_size=128, checkpoint_seconds=0.0, num_workers=1
    )
    assert same_weights(memory, train(linear, tmp_path / "here"))
    assert same_weights(memory, train(linear, tmp_path / "workers", options=workers))
    resumed = train(linear, tmp_path / "here")  # a finished run is taken up at its end
    assert same_weights(memory, resumed)
    assert resumed.history.validation_loss == memory.history.validation_loss


@pytest.mark.slow
def test_a_folder_belongs_to_one_run(linear, tmp_path):
    train(linear, tmp_path)
    with pytest.raises(TrainingError, match=r"another run: seed = 1 \(now 2\)"):
        train(linear, tmp_path, seed=2)
    with pytest.raises(TrainingError, match="num_simulations = 1000"):
        train(linear, tmp_path, num_simulations=2000)

    def other(cohort):
        with pyro.poutine.scale(scale=1.0):
            mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
            y = cohort["y"]
            prediction = phi[..., :1] + phi[..., 1:] * y.times**2
            distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", distribution, obs=y.values)

    with pytest.raises(TrainingError, match="probe"):
        pa.train(
            other,
            linear,
            num_simulations=1000,
            seed=1,
            folder=tmp_path,
            options=QUICK,
            progress=False,
        )


def test_a_folder_knows_the_networks_that_it_started_from(linear, linear_guide, tmp_path):
    """The same weights in another order have the same sum."""
    train(linear, tmp_path, warm_start=linear_guide)
    train(linear, tmp_path, warm_start=linear_guide)
    other = copy.deepcopy(linear_guide)
    with torch.no_grad():
        weight = next(x for x in other.posterior.parameters() if x.dim() == 2)
        weight.copy_(weight.flip(0))
    with pytest.raises(TrainingError, match="another run: warm_start"):
        train(linear, tmp_path, warm_start=other)


def slopes(sign):
    """A program in which the sign of the slope does not change the mean of all values."""

    def model(cohort):
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            y = cohort["y"]
            prediction = phi[..., :1] + sign * phi[..., 1:] * (y.times - 1.0)
            distribution = dist.Normal(prediction, 0.1).mask(y.observed).to_event(1)
            pyro.sample("y", distribution, obs=y.values)

    return model


def test_a_folder_knows_its_program_and_its_missing_values(tmp_path):
    times = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]).double().expand(20, -1)
    cohort = pa.Cohort({"y": pa.Series(times, torch.ones_like(times))})
    settings = {"num_simulations": 1000, "options": QUICK, "folder": tmp_path, "progress": False}
    pa.train(slopes(1.0), pa.Resample(cohort, RandomMissing(0.0, 0.2)), **settings)
    with pytest.raises(TrainingError, match="another run: probe"):
        pa.train(slopes(-1.0), pa.Resample(cohort, RandomMissing(0.0, 0.2)), **settings)
    with pytest.raises(TrainingError, match="another run: probe"):
        pa.train(slopes(1.0), pa.Resample(cohort, RandomMissing(0.5, 0.9)), **settings)


def test_a_damaged_checkpoint_is_named(linear, tmp_path):
    train(linear, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(AmortizedError, match=r"checkpoint\.safetensors"):
        train(linear, tmp_path)


# Several processes.


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def shared_runs(num, folder, losses):
    processes, port = [], free_port()
    for rank in range(num):
        place = {"RANK": str(rank), "WORLD_SIZE": str(num), "LOCAL_RANK": str(rank)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.append(resumable.forked(resumable.train_together, place, folder, losses))
    for process in processes:
        process.join(500)
    assert all(process.exitcode == 0 for process in processes)
    return torch.tensor(json.loads(losses.read_text()))


@pytest.mark.slow
def test_two_processes_train_as_one(linear, tmp_path, monkeypatch):
    """Half of every batch each, gradients averaged by torch's DDP over gloo: the same losses.

    Simulations are kept in memory, in a common folder, or in a temporary folder of each process;
    for one process it makes no difference (the test of memory, folder and workers above).
    """
    monkeypatch.setattr(plan, "SETTINGS", resumable.SHARDS)
    history = train(linear, num_simulations=2000, seed=3).history
    one = torch.tensor([history.training_loss, history.validation_loss])
    for two in shared_runs(2, tmp_path / "common", tmp_path / "losses.json"):
        assert one.shape == two.shape
        assert torch.allclose(one, two, rtol=1e-3, atol=2e-3)
    assert (tmp_path / "common" / "simulations").exists()
