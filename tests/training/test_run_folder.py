"""Runs that are interrupted, shared, watched, or given a time."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import AmortizedError, TrainingError
from pyro_amortized.missing import RandomMissing
from tests.paths import ROOT
from tests.small import QUICK, train


def start(folder, out):
    arguments = [sys.executable, "-m", "tests.resumable", str(folder), str(out)]
    return subprocess.Popen(arguments, cwd=ROOT)


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


def kill_when(process, reached):
    """Kill -9 as soon as the condition holds; False if the process ended before that."""
    begin = time.monotonic()
    while process.poll() is None and not reached() and time.monotonic() - begin < 500:
        time.sleep(0.005)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(tmp_path):
    """kill -9 when the first simulations are written, while it trains, between two checkpoints.

    The moments are those of the run, not of the clock, which another process may delay.
    """
    assert start(tmp_path / "whole", tmp_path / "a").wait() == 0
    torn = tmp_path / "torn"
    checkpoint, seen = torn / "checkpoint.safetensors", set()

    def several_checkpoints():
        if checkpoint.exists():
            seen.add(checkpoint.stat().st_mtime_ns)
        return len(seen) > 3

    moments = [
        lambda: any((torn / "simulations").glob("shard-*.safetensors")),
        checkpoint.exists,
        several_checkpoints,
    ]
    kills = [kill_when(start(torn, tmp_path / "b"), reached) for reached in moments]
    assert sum(kills) >= 2
    assert start(torn, tmp_path / "b").wait() == 0
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

SHARED = """
import os, sys, warnings
from dataclasses import replace
warnings.simplefilter("ignore")
import torch; torch.set_num_threads(1)
import torch.distributed as dist
import pyro_amortized as pa
from pyro_amortized.training import simulation_plan as plan
from tests.exact import linear_cohort, linear_program
plan.SETTINGS = replace(plan.SETTINGS, shard_size=512)
if sys.argv[1] == "temporary":
    plan.SETTINGS = replace(plan.SETTINGS, max_memory=0)
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    dist.init_process_group("gloo")
options = pa.TrainingOptions(max_epochs=2, batch_size=128)
guide = pa.train(linear_program, linear_cohort(), num_simulations=3000, seed=3, options=options,
                 folder=None if sys.argv[1] in ("", "temporary") else sys.argv[1], progress=False)
if int(os.environ.get("RANK", "0")) == 0:
    import json
    print(json.dumps([guide.history.training_loss, guide.history.validation_loss]))
if dist.is_initialized():
    dist.destroy_process_group()
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def shared_run(num, folder):
    processes, port = [], free_port()
    for rank in range(num):
        place = {"RANK": str(rank), "WORLD_SIZE": str(num), "LOCAL_RANK": str(rank)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", SHARED, str(folder)],
                cwd=ROOT,
                env=os.environ | place,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    texts = [p.communicate(timeout=500)[0] for p in processes]
    assert all(p.returncode == 0 for p in processes)
    return torch.tensor(json.loads(texts[0].splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["", "common", "temporary"])
def test_two_processes_train_as_one(tmp_path, kept):
    """Half of every batch each, gradients averaged by torch's DDP over gloo: the same losses.

    Simulations are kept in memory, in a common folder, or in a temporary folder of each process.
    """
    folders = [tmp_path / "one", tmp_path / "two"] if kept == "common" else [kept, kept]
    one, two = shared_run(1, folders[0]), shared_run(2, folders[1])
    assert one.shape == two.shape
    assert torch.allclose(one, two, rtol=1e-3, atol=2e-3)
