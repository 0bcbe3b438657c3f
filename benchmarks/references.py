r"""Marginal likelihoods and fits against exact results: Orange, phenobarbital, warfarin, theophylline
with a limit of quantification.

For each model a guide is trained, -2LL is scored at the published point, and where the exact
maximum is known the fit is compared with it, in its standard errors. The models are those of
``examples/pharmacometrics``. Exact values: quadrature, ``../shared/references`` (copied here).
The last line is JSON.

    python benchmarks/references.py [--budget 60s] [--draws 4000] [--only orange ...] [--small]
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
sys.path[:0] = [str(ROOT / "examples" / "pharmacometrics")]

import pyro_amortized as pa

LOG = lambda *x: [float(torch.tensor(v, dtype=torch.float64).log()) for v in x]  # noqa: E731
ROOTS = lambda *x: [v**0.5 for v in x]  # noqa: E731

EXACT = {
    "orange": {
        "minus2ll": 263.39080550022527,
        "point": {"asymptote": 190.0, "half": 720.0, "scale": 350.0, "omega": 30.0, "sigma": 8.0},
        "maximum": 263.1437702007289,
        "estimates": {
            "asymptote": (192.05315088, 15.656669566),
            "half": (727.90632585, 35.248650204),
            "scale": (348.07304576, 27.079789900),
            "omega": (31.646301285, 31.646301285 * 0.324254405),
            "sigma": (7.8430119988, 7.8430119988 * 0.129099545),
        },
    },
    "phenobarbital": {
        "minus2ll": 879.473052447489,
        "point": {"typical": LOG(0.005, 1.0), "omega": ROOTS(0.04, 0.03), "b": 0.12},
        "maximum": 875.270955305152,
        "estimates": {
            "typical[0]": (-5.379074381, 0.046360958),
            "typical[1]": (-0.0002116064, 0.027118959),
            "omega[0]": (0.030649543969**0.5, 0.030649543969**0.5 * 0.248370585),
            "omega[1]": (0.031087830000**0.5, 0.031087830000**0.5 * 0.124468926),
            "b": (0.013086544394**0.5, 0.013086544394**0.5 * 0.082152274),
        },
    },
    "warfarin": {
        "minus2ll": 952.7311329072618,
        "point": {
            "typical": LOG(0.6, 0.135, 8.0),
            "omega": ROOTS(0.5, 0.08, 0.05),
            "a": 0.4,
            "b": 0.1,
        },
    },
    "theophylline_censored": {
        "minus2ll": 348.40444192683384,
        "point": {"typical": [0.45, 1.0, 3.45], "omega": ROOTS(0.4, 0.07, 0.02), "sigma": 0.7},
    },
}


def study(name, training, draws):
    module, exact = importlib.import_module(name), EXACT[name]
    begin = time.perf_counter()
    guide = pa.train(module.model, module.cohort, **training, seed=1, progress=False)
    trained = time.perf_counter() - begin
    point = {n: torch.tensor(x, dtype=torch.float64) for n, x in exact["point"].items()}
    begin = time.perf_counter()
    individuals = pa.sample_individuals(
        guide.model, module.cohort, point, guide=guide, num_draws=draws, seed=1
    )
    scored = time.perf_counter() - begin
    estimate = individuals.estimate
    minus2ll, error = -2 * float(estimate.log_mean.sum()), 2 * float(estimate.mc_error.norm())
    row = {
        "minus2ll": minus2ll,
        "exact": exact["minus2ll"],
        "mc_error": error,
        "z": (minus2ll - exact["minus2ll"]) / error,
        "largest_k": float(estimate.pareto_k.max()),
        "seconds": {"train": trained, "score": scored},
    }
    print(
        f"{name}: -2LL {minus2ll:.4f}, exact {exact['minus2ll']:.4f}, MC error {error:.4f}, z {row['z']:.2f}, largest k {row['largest_k']:.2f}; trained {trained:.0f} s, scored {scored:.1f} s",
        flush=True,
    )
    begin = time.perf_counter()
    fit = pa.fit_population(module.model, module.cohort, guide=guide, num_draws=draws, seed=1)
    row["seconds"]["fit"] = time.perf_counter() - begin
    return row | {"fit": beside_maximum(fit, exact, row["seconds"]["fit"])}


def beside_maximum(fit, exact, seconds):
    """The fit beside the exact maximum, where it is known."""
    row = {"minus2ll": fit.minus2ll, "converged": fit.converged}
    if "estimates" not in exact:
        print(
            f"    fit {fit.minus2ll:.4f}, converged {fit.converged}, {seconds:.1f} s",
            flush=True,
        )
        return row
    shifts = {}
    for p in fit.summary().parameters:
        value, sd = exact["estimates"][p.name]
        shifts[p.name] = [(p.estimate - value) / sd, p.standard_error / sd - 1]
    worst = max(abs(x[0]) for x in shifts.values())
    print(
        f"    fit {fit.minus2ll:.4f}, exact {exact['maximum']:.4f}; largest error of an estimate {worst:.3f} SE, of a standard error {100 * max(abs(x[1]) for x in shifts.values()):.1f} %; {seconds:.1f} s",
        flush=True,
    )
    return row | {"exact": exact["maximum"], "shift_in_se_and_relative_error_of_se": shifts}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--only", nargs="*", default=list(EXACT))
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    arguments = parser.parse_args()
    training = {"budget": arguments.budget}
    if arguments.small:
        arguments.draws, arguments.only = 200, ["orange"]
        options = pa.TrainingOptions(max_epochs=3, batch_size=128)
        training = {"num_simulations": 1000, "options": options}
    warnings.simplefilter("ignore")
    print(json.dumps({name: study(name, training, arguments.draws) for name in arguments.only}))


if __name__ == "__main__":
    main()
