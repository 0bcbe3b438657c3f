r"""Milliseconds of the parts of a training step, by number of parameters and times; simulations per
second; one and two processes.

    python benchmarks/steps.py [--small]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyro
import torch
from pyro.infer import CSIS
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import pyro_amortized as pa
from problems import CONVERSION, FITZHUGH, PK
from pyro_amortized.training.simulation.shard_queue import SimulationBank

from pyro_amortized.networks.conditional_flow import ConditionalFlow, FlowSizes
from pyro_amortized.numerics.muon_optimizer import Muon
from pyro_amortized.networks import DeepSet, GridNetwork, TokenLayout
from pyro_amortized.training.simulation.shard_simulation import Simulator
from pyro_amortized.training.simulation.shard_store import SimulationStore
from pyro_amortized.runtime.workers import Workers

BATCH = 512


def clock(function, repeats=30):
    """Median milliseconds of a call."""
    durations = []
    warm = min(5, repeats)
    for _ in range(repeats + warm):
        begin = time.perf_counter()
        function()
        durations.append(1e3 * (time.perf_counter() - begin))
    return sorted(durations[warm:])[repeats // 2]


def step(num_latent, num_times, grid, repeats):
    """Milliseconds of the parts of a step."""
    tokens, mask, static = (
        torch.randn(BATCH, num_times, 10),
        torch.rand(BATCH, num_times) > 0.2,
        torch.zeros(BATCH, 0),
    )
    summary = GridNetwork(TokenLayout(10, 0, num_times, 4)) if grid else DeepSet(TokenLayout(10, 0))
    width = 64 if num_latent <= 4 else 32
    flow = ConditionalFlow(
        num_latent,
        summary.num_summary,
        FlowSizes(num_layers=2, depth=1 if grid else 2, layer_width=width),
    )
    u = torch.randn(BATCH, num_latent)
    weights = [*summary.parameters(), *flow.parameters()]
    matrices = [p for p in weights if p.dim() >= 2 and min(p.shape[-2:]) >= 16]
    others = [p for p in weights if all(p is not m for m in matrices)]
    optimizers = [Muon(matrices, lr=1e-3), torch.optim.Adam(others, lr=1e-3, fused=True)]

    def loss():
        return -flow(summary(tokens, mask, static)).log_prob(u).mean()

    def training_step():
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        for optimizer in optimizers:
            optimizer.step()

    total = clock(training_step, repeats)
    with torch.no_grad():
        parts = {
            "summary": clock(lambda: summary(tokens, mask, static), repeats),
            "loss": clock(loss, repeats),
        }
    parts["backward"] = clock(lambda: loss().backward(), repeats) - parts["loss"]
    parts["muon"] = clock(optimizers[0].step, repeats)
    return {"total": total} | parts


def csis_step(repeats, batch_size):
    """Pyro's compiled sequential importance sampling, one gradient step."""

    def model(observations=None):
        distribution = pyro.distributions.Normal(CONVERSION.loc.float(), 0.5).to_event(1)
        k = pyro.sample("log_k", distribution).exp()
        total = k.sum()
        mean = k[0] / total * (1 - torch.exp(-total * CONVERSION.times.float()))
        given = (observations or {}).get("y")
        pyro.sample(
            "y",
            pyro.distributions.Normal(mean, 0.015).to_event(1),
            obs=torch.zeros(11) if given is None else given,
        )

    network = nn.Sequential(nn.Linear(11, 64), nn.SiLU(), nn.Linear(64, 4))

    def guide(observations=None):
        pyro.module("network", network)
        location, log_scale = network(observations["y"]).chunk(2)
        pyro.sample("log_k", pyro.distributions.Normal(location, log_scale.exp()).to_event(1))

    csis = CSIS(model, guide, pyro.optim.Adam({"lr": 1e-3}), training_batch_size=batch_size)
    return clock(csis.step, repeats)


def simulations_per_second(problem, num_workers, size=8192, num_shards=4):
    example = problem.design(64, torch.Generator().manual_seed(0))
    structure = pa.read_structure(problem.model, example)
    simulator = Simulator(structure, problem.design, problem.training, 1)
    with tempfile.TemporaryDirectory() as folder:
        warm = SimulationBank(
            simulator, 64, 2 * max(num_workers, 1), 64, None, Workers(num_workers)
        )
        warm.start()
        [warm.get(k) for k in range(warm.num_shards)]
        warm.close()
        store = SimulationStore(Path(folder))
        bank = SimulationBank(simulator, size, num_shards, size, store, Workers(num_workers))
        begin = time.perf_counter()
        bank.start()
        [bank.get(k) for k in range(num_shards)]
        seconds = time.perf_counter() - begin
        bank.close()
    return num_shards * size / seconds


SHARED = """
import os, sys, warnings; warnings.simplefilter("ignore")
sys.path.insert(0, os.path.join(os.getcwd(), "benchmarks"))
import torch; torch.set_num_threads(1)
import torch.distributed as dist
import pyro_amortized as pa
from problems import CONVERSION
if int(os.environ["WORLD_SIZE"]) > 1:
    dist.init_process_group("gloo")
options = pa.TrainingOptions(max_epochs=1, batch_size=2048, num_workers=0)
guide = pa.train(CONVERSION.model, CONVERSION.design, num_simulations=int(sys.argv[1]), seed=1, options=options,
                 training_distribution=CONVERSION.training, progress=False)
if os.environ["RANK"] == "0":
    print(1e3 * guide.history.training_seconds / guide.history.num_steps)
"""


def shared_training(num, num_simulations, port=29_600):
    """Milliseconds of a step of 2,048, shared by several processes (gloo)."""
    processes = []
    for rank in range(num):
        place = {
            "RANK": str(rank),
            "WORLD_SIZE": str(num),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", SHARED, str(num_simulations)],
                cwd=Path(__file__).parents[1],
                env=os.environ | place,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    texts = [p.communicate()[0] for p in processes]
    return float(texts[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    small = parser.parse_args().small
    repeats, lengths, latents, size, workers = 30, (3, 20, 200), (2, 4, 12), 8192, (0, 1, 2)
    problems, processes, num = (CONVERSION, PK, FITZHUGH), (1, 2), 300_000
    if small:
        repeats, lengths, latents, size, workers = 1, (3,), (2,), 64, (0, 1)
        problems, processes, num = (CONVERSION,), (1,), 1000
    torch.set_num_threads(1)
    table = {"step_ms": {}, "simulations_per_second": {}}
    print(f"milliseconds of a step of {BATCH}, one thread")
    for grid in (True, False):
        for num_times in lengths:
            for num_latent in latents:
                measured = step(num_latent, num_times, grid, repeats)
                key = f"{'grid' if grid else 'set'} {num_times} times, d = {num_latent}"
                table["step_ms"][key] = measured
                print(
                    f"{key:24}" + "".join(f"{n} {x:7.2f}  " for n, x in measured.items()),
                    flush=True,
                )
    csis_repeats, csis_batch = (1, 8) if small else (3, BATCH)
    table["csis_step_ms"] = csis_step(csis_repeats, csis_batch)
    print(
        f"Pyro's CSIS, conversion reaction, batch {csis_batch}: {table['csis_step_ms']:.0f} ms",
        flush=True,
    )
    for problem in problems:
        measured = {str(n): round(simulations_per_second(problem, n, size)) for n in workers}
        table["simulations_per_second"][problem.name] = measured
        print(
            f"{problem.name}: simulations per second by number of workers (0: this process): {measured}",
            flush=True,
        )
    table["shared_step_ms"] = {str(n): shared_training(n, num) for n in processes}
    print(f"a step of 2,048 by number of processes: {table['shared_step_ms']}", flush=True)
    print(json.dumps(table))


if __name__ == "__main__":
    main()
