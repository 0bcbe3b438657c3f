r"""When does training a guide pay? Fits and posteriors with a guide and without one.

The same cohorts are fitted in both ways, one after the other: seconds, -2LL with its Monte Carlo
error, and the share of the individuals whose draws come from the guide itself. Then new individuals
get posterior draws at a known population. The training is timed separately. The last line is JSON.
``--small`` uses few individuals and a short training; ``--budget`` is the time of each training.
"""

import argparse
import importlib
import json
import sys
import time
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
sys.path[:0] = [str(ROOT), str(Path(__file__).parent), str(EXAMPLES)]
sys.path.insert(0, str(EXAMPLES / "pharmacometrics"))

import quickstart

import pyro_amortized as pa
from pyro_amortized.model import read_structure
from pyro_amortized.population.bootstrapping import simulate_population

ORAL = {
    "typical": torch.tensor([0.45, 1.0, 3.45]),
    "omega": torch.tensor([0.64, 0.26, 0.13]),
    "sigma": torch.tensor(0.7),
}


def simulated(model, design, population, num):
    """A cohort of ``num`` individuals with the designs of a cohort, repeated."""
    repeated = design.repeat(-(-num // len(design)))[torch.arange(num)]
    return simulate_population(read_structure(model, repeated), repeated, population, 1)


def trained(model, design, budget):
    """A guide, and the seconds of its training."""
    begin = time.perf_counter()
    guide = pa.train(model, design, budget=budget, seed=1, progress=False)
    return guide, time.perf_counter() - begin


def served(methods):
    """Share of the individuals whose draws come from the guide itself."""
    return sum(name == "guide" for name in methods) / len(methods)


def fits(name, model, cohort, guide):
    """Both fits of a cohort, as a row."""
    row = {"name": name, "individuals": len(cohort)}
    for way, given in (("without", None), ("with", guide)):
        begin = time.perf_counter()
        fit = pa.fit_population(
            model, cohort, guide=given, seed=1, retrain=False if given else None
        )
        row[f"seconds {way}"] = time.perf_counter() - begin
        row[f"-2LL {way}"] = fit.minus2ll
        row[f"error {way}"] = fit.marginal.minus2ll_mc_error
        if given is not None:
            row["served"] = served(fit.individuals.method)
    return row


def posteriors(name, model, cohort, population, guide):
    """Draws of every individual at a population, as a row."""
    row = {"name": name, "individuals": len(cohort)}
    for way, given in (("without", None), ("with", guide)):
        begin = time.perf_counter()
        draws = pa.sample_individuals(model, cohort, population, guide=given, seed=1)
        row[f"seconds {way}"] = time.perf_counter() - begin
        row[f"ESS {way}"] = float(draws.estimate.ess.median())
        if given is not None:
            row["served"] = served(draws.method)
    return row


def show(row):
    print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    sys.stdout.flush()


def main(small, budget):
    warnings.simplefilter("ignore", pa.AmortizedWarning)
    sizes = (12,) if small else (12, 100, 1000)
    guide, seconds = trained(quickstart.model, quickstart.cohort, "1s" if small else budget)
    rows = [{"name": "training, closed form", "seconds": seconds}]
    show(rows[-1])
    for num in sizes:
        cohort = simulated(quickstart.model, quickstart.cohort, ORAL, num)
        rows.append(fits("fit, closed form", quickstart.model, cohort, guide))
        show(rows[-1])
        rows.append(posteriors("draws, closed form", quickstart.model, cohort, ORAL, guide))
        show(rows[-1])
    if not small:
        rows += costly_model(budget)
    print(json.dumps({"benchmark": "frontier", "rows": rows}))


def costly_model(budget):
    """A model of an ODE with six individual parameters."""
    turnover = importlib.import_module("warfarin_turnover")
    guide, seconds = trained(turnover.model, turnover.cohort, budget)
    rows = [{"name": "training, ODE", "seconds": seconds}]
    show(rows[-1])
    rows.append(fits("fit, ODE", turnover.model, turnover.cohort, guide))
    show(rows[-1])
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="twelve individuals")
    parser.add_argument("--budget", default="60s", help="time of each training")
    arguments = parser.parse_args()
    main(arguments.small, arguments.budget)
