"""Runs that are interrupted, shared, watched, or given a time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.encode import Encoded, Encoder
from pyro_amortized.errors import AmortizedError, TrainingError
from pyro_amortized.missing import RandomMissing
from pyro_amortized.simulate import Simulator, default_training_distribution
from pyro_amortized.train.feed import Pairs
from pyro_amortized.train.loss import Loss
from pyro_amortized.train.schedule import Schedule

from .exact import TRUTH, exact_posterior, linear_program

ROOT = Path(__file__).parent.parent
SMALL = pa.Networks(width=8, set_width=8, num_summary=8)
QUICK = pa.TrainingOptions(max_epochs=2, batch_size=128, checkpoint_seconds=0.0)

# One run in a process of its own: `python -c RUN folder seed`.
RUN = """
import sys, warnings; warnings.simplefilter("ignore")
import torch; torch.set_num_threads(1)
import pyro_amortized as pa
from pyro_amortized.train import plan
from tests.exact import linear_cohort, linear_program
plan.SHARD_SIZE = 1024
options = pa.TrainingOptions(max_epochs=3, batch_size=128, checkpoint_seconds=0.0)
guide = pa.train(linear_program, linear_cohort(), num_simulations=6000, seed=3, folder=sys.argv[1],
                 options=options, progress=False)
guide.save(sys.argv[2])
"""


def start(folder, out):
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(out)], cwd=ROOT)


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


def test_a_run_killed_at_any_moment_ends_with_the_same_weights(tmp_path):
    """kill -9 while it simulates, while it trains, while it writes."""
    begin = time.monotonic()
    assert start(tmp_path / "whole", tmp_path / "a").wait() == 0
    length = time.monotonic() - begin
    kills = 0
    for share in (0.55, 0.7, 0.85):
        process = start(tmp_path / "torn", tmp_path / "b")
        time.sleep(share * length)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    assert start(tmp_path / "torn", tmp_path / "b").wait() == 0
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def train(linear, folder=None, **more):
    settings = {"num_simulations": 1000, "seed": 1, "options": QUICK, "progress": False} | more
    return pa.train(linear_program, linear, folder=folder, **settings)


def same_weights(one, other):
    first, second = one.posterior.state_dict(), other.posterior.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_memory_folder_and_workers_give_the_same_weights(linear, tmp_path):
    memory = train(linear)
    workers = pa.TrainingOptions(
        max_epochs=2, batch_size=128, checkpoint_seconds=0.0, num_workers=1
    )
    assert same_weights(memory, train(linear, tmp_path / "here"))
    assert same_weights(memory, train(linear, tmp_path / "workers", options=workers))
    again = train(linear, tmp_path / "here")  # a finished run is taken up at its end
    assert same_weights(memory, again)
    assert again.history.validation_loss == memory.history.validation_loss


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
            law = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
            pyro.sample("y", law, obs=y.values)

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


def test_a_damaged_checkpoint_is_named(linear, tmp_path):
    train(linear, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(AmortizedError, match=r"checkpoint\.safetensors"):
        train(linear, tmp_path)


def test_checkpoint_of_this_release_is_taken_up(linear, tmp_path):
    """A fixture: the folder of a run of version 0.2, with one of two epochs done."""
    import shutil

    shutil.copytree(Path(__file__).parent / "releases" / "run_0_2_0", tmp_path / "run")
    guide = train(
        linear, tmp_path / "run", networks=pa.Networks(width=8, set_width=8, num_summary=8)
    )
    assert guide.history.num_steps > 7
    assert guide.history.validation_loss[-1] < guide.history.validation_loss[0]


# Several processes.

SHARED = """
import os, sys, warnings; warnings.simplefilter("ignore")
import torch; torch.set_num_threads(1)
import torch.distributed as dist
import pyro_amortized as pa
from pyro_amortized.train import plan
from tests.exact import linear_cohort, linear_program
plan.SHARD_SIZE = 512
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    dist.init_process_group("gloo")
options = pa.TrainingOptions(max_epochs=2, batch_size=128)
guide = pa.train(linear_program, linear_cohort(), num_simulations=3000, seed=3, options=options,
                 folder=sys.argv[1] or None, progress=False)
if int(os.environ.get("RANK", "0")) == 0:
    import json
    print(json.dumps([guide.history.training_loss, guide.history.validation_loss]))
if dist.is_initialized():
    dist.destroy_process_group()
"""


def shared_run(num, folder, port):
    processes = []
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
    texts = [p.communicate(timeout=300)[0] for p in processes]
    assert all(p.returncode == 0 for p in processes)
    return torch.tensor(json.loads(texts[0].splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("with_folder", [False, True])
def test_two_processes_train_as_one(tmp_path, with_folder):
    """Half of every batch each, gradients averaged by torch's DDP over gloo: the same losses."""
    folders = [tmp_path / "one", tmp_path / "two"] if with_folder else ["", ""]
    one, two = shared_run(1, folders[0], 0), shared_run(2, folders[1], 29_517 + with_folder)
    assert one.shape == two.shape
    assert torch.allclose(one, two, rtol=1e-3, atol=2e-3)


# Time, trackers, advice.


def test_a_time_budget_is_kept(linear):
    begin = time.monotonic()
    guide = train(linear, num_simulations=None, budget="8s")
    assert 6 < time.monotonic() - begin < 16
    history = guide.history
    assert history.stopped == "time budget used"
    assert history.learning_rate[-1] < 1e-4
    assert history.num_pairs > 5000
    mean, covariance = exact_posterior(
        linear,
        {
            "mean": guide.training_distribution.loc,
            "omega": guide.training_distribution.scale_tril.diagonal(),
            "sigma": TRUTH["sigma"],
        },
    )
    draws = guide.individual_posterior(linear, TRUTH).sample((500,))
    assert ((draws.mean(0) - mean).abs() / covariance.diagonal(dim1=1, dim2=2).sqrt()).mean() < 1


@pytest.mark.parametrize("budget", ["5 parsecs", -3, "0s", ""])
def test_budgets_that_are_none(linear, budget):
    with pytest.raises(TrainingError, match="budget"):
        train(linear, budget=budget)


class Listener:
    def __init__(self):
        self.params, self.metrics = {}, []

    def log_params(self, params):
        self.params = dict(params)

    def log_metric(self, key, value, step):
        self.metrics.append((key, value, step))


def test_a_tracker_hears_the_losses(linear):
    listener = Listener()
    guide = train(linear, tracker=listener)
    heard = [value for key, value, _ in listener.metrics if key == "validation_loss"]
    assert heard == guide.history.validation_loss
    assert listener.params["batch_size"] == 128
    assert {key for key, _, _ in listener.metrics} >= {"training_loss", "learning_rate"}


def test_advice_tells_what_is_lacking(linear):
    options = pa.TrainingOptions(max_epochs=200, batch_size=64, patience=1000, learning_rate=0.02)
    few = pa.Resample(linear, RandomMissing(0.0, 0.0))  # nothing fresh on a new pass
    guide = pa.train(
        linear_program, few, num_simulations=400, seed=1, options=options, progress=False
    )
    assert "simulations limit" in guide.history.advice
    short = train(linear, options=pa.TrainingOptions(max_epochs=6, batch_size=64))
    assert "time limits" in short.history.advice


def test_schedule_reaches_zero_and_cools_down():
    plan = Schedule(1.0, 10, 1000)
    assert plan.rate(0, plan.progress(0, 0.0)) == pytest.approx(0.1)
    assert plan.rate(1000, plan.progress(1000, 0.0)) == pytest.approx(0.0, abs=1e-12)
    cooled = Schedule(1.0, 10, 1000, cooling_from=200)
    assert cooled.progress(200, 0.0) == pytest.approx(0.8)
    assert cooled.progress(250, 0.0) == 1.0
    timed = Schedule(1.0, 0, None)
    assert timed.progress(10**9, 0.25) == 0.25


# Fresh missingness, several draws of the noise, networks by shape.


def test_missingness_is_drawn_anew_on_every_pass(linear):
    seen = []

    def missing(cohort, generator):
        found = RandomMissing()(cohort, generator)
        seen.append(found["y"].observed)
        return found

    design = pa.Resample(linear, missing)
    options = pa.TrainingOptions(max_epochs=3, batch_size=128)
    train(design, options=options)
    masks = [m for m in seen if len(m) == 800]
    assert len(masks) >= 4
    assert len({m.float().mean().item() for m in masks}) >= 3


def test_noise_is_drawn_several_times_from_one_solution(linear):
    calls = []

    def counting(cohort):
        calls.append(len(cohort))
        linear_program(cohort)

    structure = pa.read_structure(counting, linear)
    distribution = default_training_distribution(structure, linear, 0, num_draws=50)
    calls.clear()
    found = Simulator(structure, pa.Resample(linear), distribution, 1, num_noise=4)(0, 5000)
    assert calls == [5000]
    assert len(found) == 20_000
    y, phi = found.cohort["y"].values.reshape(4, 5000, -1), found.unconstrained.reshape(4, 5000, 2)
    assert torch.equal(phi[0], phi[3])
    sigma = found.shared[:5000].exp()
    difference = (y[0] - y[2]) / sigma / 2**0.5  # independent noise of the right size
    assert difference.std() == pytest.approx(1.0, abs=0.02)
    one = Simulator(structure, pa.Resample(linear), distribution, 1)(0, 5000)
    assert torch.equal(one.cohort["y"].values, y[0])


def test_networks_follow_the_shape_of_the_problem(linear):
    times = torch.linspace(0, 3, 5, dtype=torch.float64).expand(20, -1)
    common = pa.Cohort({"y": pa.Series(times, torch.ones(20, 5, dtype=torch.float64))})
    assert train(common).posterior.encoder.grid is not None
    assert train(linear).posterior.encoder.grid is None
    free = train(common, networks=pa.Networks(grid=False))
    assert free.posterior.encoder.grid is None
    with pytest.raises(TrainingError, match="share their times"):
        train(linear, networks=pa.Networks(grid=True))
    with pytest.raises(TrainingError, match="sizes"):
        pa.Networks(width=0)


def test_gridded_guide_saves_loads_and_reads_fewer_columns(linear, tmp_path):
    times = torch.linspace(0, 3, 5, dtype=torch.float64).expand(20, -1)
    values = torch.randn(20, 5, dtype=torch.float64)
    common = pa.Cohort({"y": pa.Series(times, values)})
    guide = train(common)
    guide.save(tmp_path)
    loaded = pa.load_guide(tmp_path, linear_program, common)
    shorter = pa.Cohort({"y": pa.Series(times[:, 1:4], values[:, 1:4])})
    points = torch.zeros(20, 2, dtype=torch.float64)
    for cohort in (common, shorter):
        laws = [g.individual_posterior(cohort, TRUTH) for g in (guide, loaded)]
        assert torch.equal(laws[0].log_prob(points), laws[1].log_prob(points))


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
        law = dist.Normal(slope.sqrt()[..., None] * y.times, 1.0).mask(y.observed).to_event(1)
        pyro.sample("y", law, obs=y.values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_a_gpu(linear):
    options = pa.TrainingOptions(max_epochs=2, batch_size=128, device="cuda")
    guide = train(linear, options=options)
    assert guide.history.validation_loss[-1] < guide.history.validation_loss[0]
    assert guide.posterior.flow.loc.device.type == "cpu"


def test_half_precision_moves_the_loss_little():
    torch.manual_seed(0)
    encoder = Encoder(["y"], [1], [], has_doses=False)
    posterior = pa.Networks().build(encoder, 2, 0)
    tokens = torch.randn(200, 5, encoder.num_features)
    encoded = Encoded(tokens, torch.rand(200, 5) > 0.2, torch.zeros(200, 0))
    pairs = Pairs(encoded, torch.randn(200, 2), torch.zeros(200, 0))
    whole, half = (float(Loss(posterior, kind)(pairs).detach()) for kind in (None, torch.bfloat16))
    assert half == pytest.approx(whole, abs=0.02)
