r"""Theophylline-like cohorts with 0 to 60 % of the values missing: estimates, errors, coverage, exactly.

    python benchmarks/missing_theophylline.py [--cohorts 25] [--small]

Cohorts of 12 individuals are simulated at the estimates of the theophylline data, values go missing at
random, and each is fitted twice: by ``fit_population`` and by the exact marginal likelihood (quadrature
of 11 x 11 x 11 nodes per individual; maximum by BFGS, standard errors from its Hessian). Prints a table
by missing share and, as its last line, JSON.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))
from quickstart import cohort, model
import pyro_amortized as pa
from pyro_amortized import nlme

TRUTH = {
    "typical": torch.tensor([0.45928, 1.01167, 3.45385]),
    "omega": torch.tensor([0.63637, 0.26517, 0.13596]),
    "sigma": torch.tensor(0.69592),
}
NODES = 11


class Exact:
    """The marginal likelihood of one cohort by Gauss-Hermite quadrature around given moments.

    The nodes stay where they are, so that the likelihood is a smooth function of the population and
    the predictions are computed once.
    """

    def __init__(self, data, mean, covariance, inflation=1.3):
        x, w = np.polynomial.hermite_e.hermegauss(NODES)
        z = torch.cartesian_prod(*[torch.as_tensor(x)] * 3)
        log_w = torch.cartesian_prod(*[torch.as_tensor(np.log(w / w.sum()))] * 3).sum(-1)
        tril = torch.linalg.cholesky(inflation * covariance)
        self.phi = mean + torch.einsum("nij,kj->kni", tril, z)
        log_normal = -0.5 * z.pow(2).sum(-1, keepdim=True) - 1.5 * np.log(2 * np.pi)
        self.log_base = (
            log_w.unsqueeze(1) - log_normal + tril.diagonal(dim1=1, dim2=2).log().sum(-1)
        )
        many = data.repeat(len(z))
        ka, cl, v = self.phi.flatten(0, 1).exp().unbind(-1)
        series = many["concentration"]
        conc = nlme.one_compartment(series.times, many.doses, ka=ka, cl=cl, v=v)
        square = ((series.values - conc) ** 2 * series.observed).sum(-1)
        self.square = square.reshape(len(z), len(data))
        self.num = data["concentration"].observed.sum(1).double()

    def minus2ll(self, x):
        typical, omega, sigma = x[:3], x[3:6].exp(), x[6].exp()
        prior = (
            -0.5 * ((self.phi - typical) / omega).pow(2).sum(-1)
            - omega.log().sum()
            - 1.5 * np.log(2 * np.pi)
        )
        noise = -0.5 * self.square / sigma**2 - self.num * (sigma.log() + 0.5 * np.log(2 * np.pi))
        return -2 * (prior + noise + self.log_base).logsumexp(0).sum()

    def fit(self, start):
        """Estimates on the natural scale, their standard errors, -2LL at the maximum."""
        x = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [x],
            max_iter=300,
            tolerance_grad=1e-8,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def closure():
            optimizer.zero_grad()
            value = self.minus2ll(x)
            value.backward()
            return value

        optimizer.step(closure)
        best = x.detach()
        hessian = torch.autograd.functional.hessian(self.minus2ll, best) / 2
        slope = torch.cat([torch.ones(3, dtype=torch.float64), best[3:].exp()])
        se = torch.linalg.inv(hessian).diagonal().clamp(min=0).sqrt() * slope
        return torch.cat([best[:3], best[3:].exp()]), se, float(self.minus2ll(best))


def vector(values):
    return torch.cat([values[n].double().reshape(-1) for n in ("typical", "omega", "sigma")])


def moments(individuals):
    weights = individuals.weights.unsqueeze(-1)
    mean = (weights * individuals.unconstrained).sum(0)
    centered = individuals.unconstrained - mean
    return mean, torch.einsum("kn,kni,knj->nij", individuals.weights, centered, centered)


def compare(guide, data, seed, more):
    """One cohort: both fits, or the reason why there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pa.AmortizedWarning)
        begin = time.perf_counter()
        fit = pa.fit_population(model, data, guide=guide, seed=seed, **more)
        took = time.perf_counter() - begin
    estimate = vector(fit.estimates)
    if not fit.converged:
        return {"message": fit.message, "estimates": estimate.tolist()}
    exact = Exact(data, *moments(fit.individuals))
    estimates, se, minus2ll = exact.fit(torch.cat([estimate[:3], estimate[3:].log()]))
    return {
        "found": estimate,
        "found_se": vector(fit.standard_errors),
        "exact": estimates,
        "exact_se": se,
        "minus2ll_error": fit.minus2ll - minus2ll,
        "minus2ll_mc_error": fit.marginal.minus2ll_mc_error,
        "seconds": took,
    }


def simulated(structure, share, seed):
    """A cohort at the truth, with a share of its values missing."""
    generator = torch.Generator().manual_seed(1000 + seed)
    double = cohort.to(dtype=torch.float64)
    population = {n: x.double() for n, x in TRUTH.items()}
    latent = structure.draw_individuals(double, population, 1, generator)[0]
    shared = structure.unconstrain_population(population, structure.shared)
    plan = pa.Resample(double).cohort
    data, _ = structure.simulate(plan, latent, shared.expand(12, -1), population, generator)
    return pa.RandomMissing(share, share)(data, generator)


def summary(rows, num_failed):
    """Errors of the fits of many cohorts, and the coverage of both intervals."""
    stack = {
        n: torch.stack([torch.as_tensor(r[n], dtype=torch.float64) for r in rows]) for n in rows[0]
    }
    error = (stack["found"] - stack["exact"]) / stack["exact_se"]
    ratio = stack["found_se"] / stack["exact_se"] - 1
    holds = {
        n: float((((stack[n] - vector(TRUTH)) / stack[f"{n}_se"]).abs() < 1.96).double().mean())
        for n in ("found", "exact")
    }
    return {
        "cohorts": len(rows),
        "largest_error_se": float(error.abs().max()),
        "rms_error_se": float(error.pow(2).mean().sqrt()),
        "rms_se_ratio": float(ratio.pow(2).mean().sqrt()),
        "minus2ll_rms_error": float(stack["minus2ll_error"].pow(2).mean().sqrt()),
        "minus2ll_mc_error": float(stack["minus2ll_mc_error"].mean()),
        "coverage": holds["found"],
        "exact_coverage": holds["exact"],
        "seconds": float(stack["seconds"].median()),
        "not_converged": num_failed,
    }


def show_data(guide):
    """The maximum for the data themselves, against the established one."""
    full = Exact(
        cohort.to(dtype=torch.float64),
        *moments(pa.sample_individuals(model, cohort, TRUTH, guide=guide, num_draws=2000)),
    )
    estimates, se, minus2ll = full.fit(torch.cat([vector(TRUTH)[:3], vector(TRUTH)[3:].log()]))
    print(
        f"the data themselves: -2LL {minus2ll:.4f} (established 360.7007), largest error of an estimate {float(((estimates - vector(TRUTH)) / se).abs().max()):.4f} SE"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=25)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options, num = pa.TrainingOptions(max_epochs=12), 300_000
    shares, more = (0.0, 0.2, 0.4, 0.6), {}
    if arguments.small:
        options, num = pa.TrainingOptions(max_epochs=3, batch_size=128), 3000
        shares, arguments.cohorts = (0.0,), 1
        more = {"num_draws": 300, "num_starts": 1, "retrain": False}
    guide = pa.train(model, cohort, num_simulations=num, seed=1, options=options, progress=False)
    show_data(guide)
    table = {}
    print(
        "\n| missing | cohorts | largest error of an estimate, SE | rms | SE ratio - 1, rms | -2LL error, rms | its MC error | 95 % intervals that hold the truth: ours | exact | seconds a fit | not converged |\n|"
        + "---|" * 11
    )
    for share in shares:
        rows, failed = [], []
        for k in range(arguments.cohorts):
            row = compare(guide, simulated(guide.structure, share, k), k, more)
            (failed if "message" in row else rows).append(row)
        table[str(share)] = row = summary(rows, len(failed))
        print(
            f"| {share:.0%} | {len(rows)} | "
            + " | ".join(f"{row[c]:.3f}" for c in list(row)[1:9])
            + f" | {len(failed)} |",
            flush=True,
        )
        for one in failed:
            print("  not converged:", one["message"], [round(x, 3) for x in one["estimates"]])
    print(json.dumps(table))


if __name__ == "__main__":
    main()
