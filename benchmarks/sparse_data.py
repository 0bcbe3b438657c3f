r"""60 simulated data sets of 120 individuals with four samples each, without a guide.

Data and results of nlmixr2 (FOCEI and SAEM) are read from ``../shared/references/sparse``. The
table shows bias and root mean squared error of the estimates about the truth for the three
methods and for the exact maximum of the likelihood, by quadrature, whether -2LL is at or below both
reported ones, and the median seconds. The last line is JSON with ``claims``. ``--sets N`` fits the
first N sets.
"""

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from first_answer_models import sparse

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.numerics.maximization import maximize
from pyro_amortized.sampling.importance_weights import normalized_weights

NUM_NODES = 9  # of the quadrature, for each of the three individual parameters
FOLDER = ROOT.parent / "shared" / "references" / "sparse"
# The truth of the simulation: log scale, and standard deviations.
TRUTH = {
    "lCL": math.log(4),
    "lV": math.log(70),
    "lKA": 0.0,
    "sd_CL": 0.3,
    "sd_V": 0.3,
    "sd_KA": 0.3,
    "prop": 0.2,
}


def fitted(cohort):
    """Estimates in the names of the references, -2LL with its error, and how the fit ended."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        fit = pa.fit_population(sparse, cohort, seed=1)
    str(fit.summary())
    seconds = time.perf_counter() - begin
    row = named(fit.estimates) | {"minus2LL": fit.minus2ll, "seconds": seconds}
    row |= {"mc_error": fit.marginal.minus2ll_mc_error, "converged": fit.converged}
    exact = exact_maximum(fit)
    off = ((fit.vector - exact) / fit.covariance.diagonal().sqrt())[fit.estimated]
    row |= {"off": float(off.abs().max()), "squared_error": float(off.square().mean())}
    return row, named(fit.structure.constrain_population(exact))


def named(estimates):
    """Estimates in the names of the references."""
    names = ("KA", "CL", "V")
    typical, omega = estimates["typical"].tolist(), estimates["omega"].tolist()
    row = {f"l{name}": x for name, x in zip(names, typical, strict=True)}
    row |= {f"sd_{name}": x for name, x in zip(names, omega, strict=True)}
    return row | {"prop": float(estimates["b"])}


def exact_maximum(fit):
    """The maximum of the likelihood by Gauss-Hermite quadrature, unconstrained, with nodes where
    the posteriors of the individuals are at the fit. A standard deviation that the fit holds near
    zero is held.
    """
    structure, cohort = fit.structure, fit.cohort.to(dtype=torch.float64)
    draws, weights = fit.individuals.unconstrained, normalized_weights(fit.individuals.log_weights)
    mean = (weights.unsqueeze(-1) * draws).sum(0)
    offset = draws - mean
    root = torch.linalg.cholesky(torch.einsum("kn,kni,knj->nij", weights, offset, offset))
    nodes, masses = (torch.tensor(x) for x in np.polynomial.hermite_e.hermegauss(NUM_NODES))
    points = torch.cartesian_prod(nodes, nodes, nodes)
    log_masses = torch.cartesian_prod(masses, masses, masses).log().sum(1)
    places = mean + torch.einsum("nij,kj->kni", root, points)
    log_det = root.diagonal(dim1=1, dim2=2).log().sum(1)
    added = (log_masses + points.square().sum(1) / 2).unsqueeze(1) + log_det
    prepared = structure.prepared_density(cohort, places)

    def log_likelihood(x):
        density = prepared(structure.constrain_population(x), places)
        return (density.observation + density.individual + added).logsumexp(0).sum()

    free, scale = fit.estimated, fit.covariance.diagonal().sqrt()
    optimum = maximize(
        lambda x: log_likelihood(fit.vector.masked_scatter(free, x)),
        fit.vector[free],
        scale=scale[free],
    )
    return fit.vector.masked_scatter(free, optimum.vector)


def errors(rows):
    """Bias and root mean squared error of every estimate."""
    differences = torch.tensor([[row[name] - x for name, x in TRUTH.items()] for row in rows])
    return differences.mean(0), differences.pow(2).mean(0).sqrt()


def reported(method, sets):
    """Rows of nlmixr2, by set."""
    table = pandas.read_csv(FOLDER / "nlmixr2.csv")
    table = table[(table["method"] == method) & table["SET"].isin(sets)]
    return table.sort_values("SET").to_dict("records")


def main(num_sets, num_individuals=None):
    if not FOLDER.is_dir():
        raise SystemExit(f"{FOLDER} is absent: this benchmark needs its data.")
    table = pandas.read_csv(FOLDER / "data.csv")
    sets = range(1, num_sets + 1)
    others = {method: reported(method, sets) for method in ("focei", "saem")}
    ours, exact, below = [], [], 0
    for number in sets:
        cohort = nlme.read_table(table[table["SET"] == number].drop(columns="SET"), series="y")
        row, maximum = fitted(cohort if num_individuals is None else cohort[:num_individuals])
        ours.append(row)
        exact.append(maximum)
        least = min(others[method][number - 1]["reported_minus2LL"] for method in others)
        below += row["minus2LL"] <= least + 3 * row["mc_error"]
        print(
            f"set {number:2}: {row['seconds']:5.1f} s  -2LL {row['minus2LL']:.3f} +- "
            f"{row['mc_error']:.3f} (nlmixr2: {least:.3f})"
            f", {row['off']:.3f} SE from the exact maximum"
            f"{'' if row['converged'] else '  NOT CONVERGED'}",
            flush=True,
        )
    summary = {"ours": errors(ours), "exact": errors(exact)} | {
        name: errors(rows) for name, rows in others.items()
    }
    print(f"{'':18}" + "".join(f"{name:>10}" for name in TRUTH))
    for name, (bias, rmse) in summary.items():
        print(f"{name:12} bias " + "".join(f"{x:10.4f}" for x in bias.tolist()))
        print(f"{name:12} rmse " + "".join(f"{x:10.4f}" for x in rmse.tolist()))
    print(json.dumps({"benchmark": "sparse_data", "claims": claims(ours, others, summary, below)}))


def claims(ours, others, summary, below):
    """Each claim with its value and bound."""
    num = len(ours)
    seconds = torch.tensor([row["seconds"] for row in ours]).median()
    theirs = torch.tensor([row["seconds_all"] for row in others["saem"]]).median()
    # Typical values and standard deviations of the individuals; the mean of the ratios.
    ratios = {
        name: float((summary["ours"][1] / rmse)[:6].mean()) for name, (_, rmse) in summary.items()
    }
    bias = {name: float((bias / rmse)[:6].abs().mean()) for name, (bias, rmse) in summary.items()}
    off = (sum(row["squared_error"] for row in ours) / num) ** 0.5
    rows = {
        "converged": (sum(row["converged"] for row in ours), num, "at least"),
        "-2LL at or below both": (below, num, "at least"),
        "root mean square error in SE": (off, 0.02, "at most"),
        "RMSE in those of SAEM": (ratios["saem"], 1.0, "at most"),
        "RMSE in those of FOCEI": (ratios["focei"], 1.0, "at most"),
        "bias in RMSE": (bias["ours"], bias["saem"], "at most"),
        "median seconds": (float(seconds), float(theirs), "at most"),
    }
    return {
        name: {
            "value": value,
            "bound": bound,
            "holds": value >= bound if sense == "at least" else value <= bound,
        }
        for name, (value, bound, sense) in rows.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=60, help="number of data sets")
    parser.add_argument(
        "--small", action="store_true", help="a part of one set, to see that it runs"
    )
    arguments = parser.parse_args()
    main(*((1, 20) if arguments.small else (arguments.sets,)))
