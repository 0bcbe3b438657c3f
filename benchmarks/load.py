r"""Large cohorts, many guides and many fits: time, error and memory.

    .venv/bin/python benchmarks/load.py [--individuals 100000] [--guides 1000] [--fits 60]
        [--small]

Scores ``--individuals`` individuals of 10 observations; loads and uses ``--guides`` guides one after
another in one process; fits ``--fits`` cohorts in a loop, each with scores, draws of the population
and an export. Memory (resident, MB) is taken after a tenth and at the
end. Ends in one JSON line.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import to_arviz

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.exact import TRUTH, linear_program


def simulated(num, seed):
    generator = torch.Generator().manual_seed(seed)
    times = torch.linspace(0.5, 4.0, 10).double().expand(num, -1).clone()
    noise = torch.randn(num, 12, generator=generator, dtype=torch.float64)
    phi = TRUTH["mean"] + TRUTH["omega"] * noise[:, :2]
    values = phi[:, :1] + phi[:, 1:] * times + TRUTH["sigma"] * noise[:, 2:]
    return pa.Cohort({"y": pa.Series(times, values)})


def exact(cohort):
    y = cohort["y"]
    design = torch.stack([torch.ones_like(y.times[0]), y.times[0]], -1)
    covariance = design @ torch.diag(TRUTH["omega"] ** 2) @ design.T
    covariance = covariance + TRUTH["sigma"] ** 2 * torch.eye(10).double()
    distribution = torch.distributions.MultivariateNormal(design @ TRUTH["mean"], covariance)
    return distribution.log_prob(y.values)


def memory():
    """Resident memory now, in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def over_time(num, what):
    """Memory after a tenth and after all, and the seconds of one."""
    begin, first = time.perf_counter(), None
    for k in range(num):
        what(k)
        if k + 1 == max(1, num // 10):
            first = memory()
    seconds = (time.perf_counter() - begin) / num
    return {"number": num, "seconds_each": seconds, "first_mb": first, "last_mb": memory()}


def score(guide, num):
    """The log likelihood of a large cohort, and the memory that it takes."""
    large = simulated(num, 2)
    begin = time.perf_counter()
    likelihood = pa.marginal_likelihood(
        linear_program, large, TRUTH, guide=guide, num_draws=200, seed=1
    )
    seconds = time.perf_counter() - begin
    off = likelihood.log_likelihood - exact(large)
    total = float(off.sum() / likelihood.mc_error.pow(2).sum().sqrt())
    sd = float((off / likelihood.mc_error.clamp(min=1e-3)).std())
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3
    print(
        f"{num:,} individuals x 10 values x 200 draws: {seconds:.0f} s, error of the total "
        f"{total:.2f} MC errors, peak {peak:.0f} MB",
        flush=True,
    )
    return {
        "individuals": num,
        "seconds": seconds,
        "total_z": total,
        "sd_z": sd,
        "peak_mb": peak,
    }


def use_guides(guide, cohort, num):
    """Load a saved guide and use it, many times."""
    with tempfile.TemporaryDirectory() as folder:
        guide.save(folder)

        def use(k):
            loaded = pa.load_guide(folder, linear_program, cohort)
            pa.marginal_likelihood(
                linear_program, cohort[:5], TRUTH, guide=loaded, num_draws=50, seed=k
            )

        return over_time(num, use)


def fit_cohorts(guide, num, individuals, num_draws, num_starts):
    """Fit many cohorts, each with all that follows a fit."""

    def day(k):
        fit = pa.fit_population(
            linear_program,
            simulated(individuals, k),
            guide=guide,
            num_draws=num_draws,
            num_starts=num_starts,
            seed=k,
        )
        pa.sample_population(fit, num_draws=50, num_proposals=200, seed=k)
        to_arviz(fit, num_draws=50, num_prior_draws=0, seed=k)
        fit.summary()

    return over_time(num, day)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--individuals", type=int, default=100_000)
    parser.add_argument("--guides", type=int, default=1000)
    parser.add_argument("--fits", type=int, default=60)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    arguments = parser.parse_args()
    num, options = 50_000, pa.TrainingOptions()
    sizes = {"individuals": 30, "num_draws": 300, "num_starts": 4}
    if arguments.small:
        arguments.individuals, arguments.guides, arguments.fits = 50, 2, 1
        num, options = 1000, pa.TrainingOptions(max_epochs=3, batch_size=128)
        sizes = {"individuals": 12, "num_draws": 100, "num_starts": 1}
    warnings.simplefilter("ignore", pa.AmortizedWarning)
    small = simulated(40, 1)
    guide = pa.train(
        linear_program, small, num_simulations=num, seed=1, options=options, progress=False
    )
    results = {"score": score(guide, arguments.individuals)}
    results["guides"] = use_guides(guide, small, arguments.guides)
    print(f"guides loaded and used: {results['guides']}", flush=True)
    results["fits"] = fit_cohorts(guide, arguments.fits, **sizes)
    print(f"fits with all that follows: {results['fits']}", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
