import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import joblib
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate
from pyro_amortized.errors import AmortizedError
from pyro_amortized.guide.default_distribution import default_training_distribution
from pyro_amortized.population.search.maximum_search import Search
from pyro_amortized.population.search.starting_values import locate_population
from pyro_amortized.runtime.workers import Workers
from pyro_amortized.training.simulation.shard_queue import SETTINGS as QUEUE
from pyro_amortized.training.simulation.shard_queue import SimulationBank
from pyro_amortized.training.simulation.shard_simulation import Simulator
from pyro_amortized.training.simulation.shard_store import SimulationStore
from tests.exact import linear_program


@pytest.fixture
def simulator(linear):
    structure = pa.read_structure(linear_program, linear)
    distribution = default_training_distribution(structure, linear, 0, num_draws=100)
    return Simulator(structure, pa.Resample(linear), distribution, seed=5)


def values(bank):
    return [bank.get(k).cohort["y"].values for k in range(bank.num_shards)]


def test_shards_do_not_depend_on_who_made_them(simulator, tmp_path):
    here = values(SimulationBank(simulator, 200, 3, 100))
    for store in (None, SimulationStore(tmp_path)):
        bank = SimulationBank(simulator, 200, 3, 100, store, Workers(1))
        bank.start()
        there = values(bank)
        bank.close()
        assert [len(x) for x in there] == [200, 200, 100]
        assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_shards_and_seeds_differ(simulator):
    bank = SimulationBank(simulator, 50, 2, 50)
    assert not torch.equal(*values(bank))


def test_what_is_stored_is_not_simulated_again(simulator, tmp_path):
    store = SimulationStore(tmp_path)
    values(SimulationBank(simulator, 50, 2, 50, store))
    before = [store.path(k).stat().st_mtime_ns for k in range(2)]
    values(SimulationBank(simulator, 50, 2, 50, store))
    assert [store.path(k).stat().st_mtime_ns for k in range(2)] == before


@dataclass(frozen=True, eq=False)
class Suicidal(Simulator):
    """Kills the first process that makes shard 1."""

    mark: Path = Path()

    def __call__(self, shard, num_simulations):
        if shard == 1 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(shard, num_simulations)


@pytest.mark.slow
def test_a_lost_worker_costs_only_its_shards(simulator, tmp_path):
    deadly = Suicidal(
        simulator.structure, simulator.design, simulator.distribution, 5, mark=tmp_path / "mark"
    )
    bank = SimulationBank(deadly, 50, 4, 50, None, Workers(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loky announces the loss
        bank.start()
        simulated = values(bank)
        bank.close()
    assert (tmp_path / "mark").exists()
    expected = values(SimulationBank(simulator, 50, 4, 50))
    assert all(torch.equal(a, b) for a, b in zip(simulated, expected, strict=True))


class Failing(Simulator):
    def __call__(self, shard, num_simulations):
        raise ArithmeticError("no such shard")


def test_an_error_in_a_worker_is_raised_here(simulator):
    bank = SimulationBank(
        Failing(simulator.structure, simulator.design, simulator.distribution, 5),
        50,
        4,
        50,
        None,
        Workers(1),
    )
    bank.start()
    with pytest.raises(ArithmeticError, match="no such shard"):
        bank.get(0)
    bank.close()


def test_a_growing_bank_stays_a_few_shards_ahead(simulator):
    bank = SimulationBank(simulator, 20, None, 20, None, Workers(1), capacity=1000)
    bank.start()
    bank.get(0)
    time.sleep(3.0)
    assert len(bank._done) <= 1 + QUEUE.num_ahead + 4
    bank.close()


def test_workers_follow_the_active_joblib_configuration():
    assert Workers.active() is None
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert Workers.active().num_workers == 2
    threads = joblib.parallel_config(backend="threading", n_jobs=3)
    with threads, pytest.raises(AmortizedError, match="threads"):
        Workers.active()


COUNTED = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from pyro_amortized.training import TrainingOptions, simulation_plan as plan
from pyro_amortized.runtime.workers import num_processors
seconds = plan.SETTINGS.slow_seconds + 1
print(num_processors(), plan._workers(TrainingOptions(), seconds).num_workers)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2,
    reason="needs two processors and a system that can bind a process to one of them",
)
def test_workers_are_counted_by_the_processors_of_this_process():
    """A process that is bound to one processor has no other to simulate on."""
    command = [sys.executable, "-W", "ignore", "-c", COUNTED]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=500)
    assert done.stdout.split() == ["1", "0"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_simulates_and_survives_a_lost_worker(simulator, tmp_path):
    """A scheduler and workers in processes of their own; one worker is killed half-way."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        workers = Workers.active()
        assert workers.num_workers == 2
        bank = SimulationBank(simulator, 200, 8, 200, SimulationStore(tmp_path), workers)
        bank.start()
        bank.get(0)
        victim = next(iter(cluster.workers.values()))
        os.kill(victim.pid, signal.SIGKILL)
        simulated = values(bank)
        bank.close()
    expected = values(SimulationBank(simulator, 200, 8, 200))
    assert all(torch.equal(a, b) for a, b in zip(simulated, expected, strict=True))


@pytest.mark.slow
def test_starts_and_calibration_in_workers_give_the_same(linear, linear_guide):
    def both():
        generator = torch.Generator().manual_seed(0)
        known = (linear_guide.structure, linear_guide, linear)
        search = Search.begin(*known, "maximum likelihood", generator)
        where = locate_population(search, num_starts=2, seed=generator)
        design = pa.Resample(linear)
        ranks = calibrate(linear_guide, design, num_individuals=200, num_draws=100, seed=1)
        return where, ranks

    here = both()
    with joblib.parallel_config(backend="loky", n_jobs=2):
        there = both()
    assert linear_guide.model is linear_program  # Pyro's own pickling would have dropped it
    assert torch.allclose(here[0], there[0], atol=1e-8)
    assert torch.equal(here[1].ranks, there[1].ranks)
