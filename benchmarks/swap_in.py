r"""In place of MCMC and SVI: time and error on four models, and the gain by amortization.

    .venv/bin/python benchmarks/swap_in.py [--only theophylline,warfarin,eight_schools,radon,cohorts]
        [--training 60] [--samples 1000] [--reference 2000] [--small]

Posterior means of all population and individual sites by NUTS (``--samples`` after half as many of
warm-up), by SVI with ``AutoNormal`` and ``AutoMultivariateNormal`` (3,000 steps, means of 1,000
draws), and by ``AmortizedMCMC`` (1,000 draws; its training apart), each against another, longer run
of NUTS. Errors are in posterior standard deviations: the largest and the root mean square over all
coordinates. All on the CPU; one core with ``taskset -c 0`` and ``OMP_NUM_THREADS=1``. ``cohorts``
times 1, 10 and 100 cohorts of the design of theophylline. Ends in one JSON line.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import pyro
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.infer.autoguide.initialization import init_to_value

import pyro_amortized as pa

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "examples" / "pharmacometrics")]

import other_models
import quickstart
import warfarin

# What a small run has less of: warm-up of the reference, steps of SVI, draws, weighted draws of
# an individual, depth of the trees of NUTS, starts of the fit, simulated cohorts,
# and their design.
SIZES = {
    "warmup": 1000,
    "steps": 3000,
    "draws": 1000,
    "weighted": 400,
    "depth": 10,
    "starts": 4,
    "fitted": None,
    "cohorts": 10,
    "design": "theophylline",
}


def problems():
    """Program, data, and where chains and variational fits of it start."""
    schools, radon = other_models.schools_problem(), other_models.radon_problem()
    theophylline = at([0.5, 1.0, 3.5], 0.3, 12) | {"sigma": torch.tensor(0.7)}
    residual = {"a": torch.tensor(0.3), "b": torch.tensor(0.1)}
    return {
        "theophylline": (quickstart.model, quickstart.cohort, theophylline),
        "warfarin": (warfarin.model, warfarin.cohort, at([-0.5, -2.0, 2.1], 0.3, 32) | residual),
        "eight_schools": (schools.program, schools.cohort, None),
        "radon": (radon.program, radon.cohort, None),
    }


def at(typical, omega, num):
    """Every individual at the centre of the prior: from anywhere else chains may end in the mode
    with absorption and elimination exchanged.
    """
    center = torch.tensor(typical)
    return {
        "typical": center,
        "omega": torch.full_like(center, omega),
        "phi": center.expand(num, -1).clone(),
    }


def start(values):
    return {} if values is None else {"init_strategy": init_to_value(values=values)}


def run_nuts(program, cohort, values, lengths, depth, seed):
    pyro.set_rng_seed(seed)
    begin = time.perf_counter()
    kernel = NUTS(program, max_tree_depth=depth, **start(values))
    chain = MCMC(kernel, *lengths, disable_progbar=True)
    chain.run(cohort)
    return chain.get_samples(), time.perf_counter() - begin


def run_svi(kind, program, cohort, values, sizes):
    pyro.clear_param_store()
    pyro.set_rng_seed(3)
    begin = time.perf_counter()
    more = start(values)
    if "init_strategy" in more:
        more = {"init_loc_fn": more["init_strategy"]}
    guide = kind(program, **more)
    optim = pyro.optim.ClippedAdam({"lr": 0.01, "lrd": 0.1 ** (1 / sizes.steps)})
    svi = SVI(program, guide, optim, Trace_ELBO())
    for _ in range(sizes.steps):
        svi.step(cohort)
    with torch.no_grad():
        draws = [guide(cohort) for _ in range(sizes.draws)]
    samples = {n: torch.stack([d[n] for d in draws]) for n in draws[0]}
    pyro.clear_param_store()
    return samples, time.perf_counter() - begin


def trained(program, cohort, sizes):
    """A guide, and the seconds of its training."""
    begin = time.perf_counter()
    guide = pa.train(program, cohort, **sizes.train, seed=1, progress=False)
    return guide, time.perf_counter() - begin


def run_ours(program, cohort, guide, sizes):
    begin = time.perf_counter()
    chain = pa.AmortizedMCMC(program, sizes.draws, guide=guide, num_draws=sizes.weighted, seed=1)
    chain.run(cohort)
    return chain.get_samples(), time.perf_counter() - begin


def errors(samples, reference):
    z = []
    for name, x in reference.items():
        x, values = x.double(), samples[name].double()
        mean = values.mean(0).reshape(x.shape[1:])
        z.append(((mean - x.mean(0)) / x.std(0)).flatten())
    z = torch.cat(z)
    return {
        "max_mean_error_sd": float(z.abs().max()),
        "rms_mean_error_sd": float(z.pow(2).mean() ** 0.5),
    }


def one(name, program, cohort, values, sizes):
    rows = {}
    guide, train_seconds = trained(program, cohort, sizes)
    samples, seconds = run_ours(program, cohort, guide, sizes)
    rows["ours"] = {"seconds": seconds, "train_seconds": train_seconds}
    short, long = (sizes.samples, sizes.samples // 2), (sizes.reference, sizes.warmup)
    nuts, nuts_seconds = run_nuts(program, cohort, values, short, sizes.depth, seed=2)
    rows["nuts"] = {"seconds": nuts_seconds}
    samples_by_method = {"ours": samples, "nuts": nuts}
    for label, kind in (("svi_normal", AutoNormal), ("svi_mvn", AutoMultivariateNormal)):
        samples_by_method[label], elapsed = run_svi(kind, program, cohort, values, sizes)
        rows[label] = {"seconds": elapsed}
    reference, long_seconds = run_nuts(program, cohort, values, long, sizes.depth, seed=4)
    print(f"\n{name}: {len(cohort)} individuals; reference {long_seconds:.0f} s")
    print(f"{'':12s}{'seconds':>9s}{'training':>10s}{'largest':>9s}{'rms error, sd':>15s}")
    for label, row in rows.items():
        row |= errors(samples_by_method[label], reference)
        print(
            f"{label:12s}{row['seconds']:9.1f}{row.get('train_seconds', 0.0):10.1f}"
            f"{row['max_mean_error_sd']:9.2f}{row['rms_mean_error_sd']:15.3f}",
            flush=True,
        )
    return rows


def cohorts(sizes):
    """Cohorts simulated from the fit to the data: one guide for all, a chain for each."""
    program, cohort, values = problems()[sizes.design]
    guide, train_seconds = trained(program, cohort, sizes)
    fit = pa.fit_population(
        program, cohort, guide=guide, num_starts=sizes.starts, num_draws=sizes.fitted, seed=1
    )
    data = [
        pa.simulate_population(fit.structure, cohort, fit.estimates, s)
        for s in range(sizes.cohorts)
    ]
    begin = time.perf_counter()
    for s, one in enumerate(data):
        chain = pa.AmortizedMCMC(
            program, sizes.draws, guide=guide, num_draws=sizes.weighted, seed=s
        )
        chain.run(one)
    ours = (time.perf_counter() - begin) / len(data)
    begin = time.perf_counter()
    for s, one in enumerate(data[:2]):
        run_nuts(program, one, values, (sizes.samples, sizes.samples // 2), sizes.depth, seed=s)
    nuts = (time.perf_counter() - begin) / len(data[:2])
    print(
        f"\nCohorts of the design of {sizes.design}: ours {ours:.1f} s each after {train_seconds:.0f} s of "
        f"training (mean of {len(data)}), NUTS {nuts:.0f} s each (mean of {len(data[:2])})"
    )
    ratios = {}
    for num in (1, 10, 100):
        ratios[str(num)] = num * nuts / (train_seconds + num * ours)
        print(
            f"{num:4d} cohorts: NUTS takes {ratios[str(num)]:.1f} times as long, training included"
        )
    return {"ours": ours, "nuts": nuts, "train_seconds": train_seconds, "ratios": ratios}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="theophylline,warfarin,eight_schools,radon,cohorts")
    parser.add_argument("--training", type=float, default=60.0)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--reference", type=int, default=2000)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    parser.set_defaults(**SIZES)
    arguments = parser.parse_args()
    arguments.train = {"budget": arguments.training}
    if arguments.small:
        arguments.only, arguments.samples = "eight_schools,cohorts", 10
        options = pa.TrainingOptions(max_epochs=3, batch_size=128)
        arguments.train = {"num_simulations": 1000, "options": options}
        arguments.reference, arguments.warmup, arguments.steps = 10, 5, 10
        arguments.draws, arguments.weighted, arguments.depth = 50, 50, 3
        arguments.starts, arguments.fitted, arguments.cohorts = 1, 100, 1
        arguments.design = "eight_schools"
    warnings.simplefilter("ignore", pa.AmortizedWarning)
    results, known = {}, problems()
    for name in arguments.only.split(","):
        results[name] = (
            cohorts(arguments) if name == "cohorts" else one(name, *known[name], arguments)
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
