r"""Peak memory of a store of 2 million simulations x 200 times, made and trained on.

python benchmarks/memory.py [--simulations 2000000] [--times 200] [--small]
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import Cohort, Series


def model(cohort):
    """Exponential decay with noise."""
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(torch.tensor([1.0, -2.0]), 0.5).to_event(1))
        y = cohort["y"]
        mean = phi[..., :1].exp() * (-phi[..., 1:].exp() * y.times).exp()
        pyro.sample("y", dist.Normal(mean, 0.05).mask(y.observed).to_event(1), obs=y.values)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2_000_000)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.simulations, arguments.times = 1000, 20
    torch.set_num_threads(1)
    times = torch.linspace(0, 20, arguments.times, dtype=torch.float64).expand(50, -1)
    cohort = Cohort({"y": Series(times, torch.ones_like(times))})
    with tempfile.TemporaryDirectory() as folder:
        before, begin = peak(), time.perf_counter()
        options = pa.TrainingOptions(max_epochs=1, batch_size=2048)
        guide = pa.train(
            model,
            cohort,
            num_simulations=arguments.simulations,
            seed=1,
            folder=folder,
            options=options,
        )
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 2**30
    row = {
        "simulations": arguments.simulations,
        "times": arguments.times,
        "store_gib": round(size, 2),
        "peak_gib": round(peak(), 2),
        "before_gib": round(before, 2),
        "seconds": round(time.perf_counter() - begin),
        "validation_loss": guide.history.validation_loss[-1],
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
