r"""Population inference: mRNA transfection, growth with N, theophylline models, coverage, two
experiments, the likelihood-free estimator.

    .venv/bin/python benchmarks/population.py
        [--only mrna,growth,theophylline,coverage,experiments,likelihood_free]
        [--training 540] [--cohorts 200] [--sizes 50,1000,10000] [--guide FOLDER] [--picture FILE]
        [--small]

Needs ../shared/references for the mRNA data. Prints tables, and one JSON line at the end.

mRNA (Froehlich et al. 2018; the task of Arruda et al. 2024): five log parameters of each cell, all
with random effects, shared residual error, 180 times; delta and gamma are exchangeable. Errors are
mean squared errors over the means and variances of delta, gamma, k and t0 against the sample truth.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
from transfection import REFERENCES, mrna, mrna_50, mrna_large, mrna_points
from population_coverage import benchmark_coverage, benchmark_experiments


EVERYTHING = "mrna,growth,theophylline,coverage,experiments,likelihood_free"
FULL = pa.TrainingOptions()
SHORT = pa.TrainingOptions(max_epochs=3, batch_size=128)


@dataclass(frozen=True)
class Amount:
    """Sizes of a run."""

    simulations: int | None = None
    cells: int = 50
    scored: int | None = None
    coverage: int = 40_000
    covered: int = 30
    experiments: int = 100_000
    options: pa.TrainingOptions = FULL
    points: int = 1000
    draws: int | None = None
    coverage_draws: int = 400
    replicates: int = 200
    replicate_draws: int = 300
    growth: tuple = (
        *((n, 200) for n in (50, 100, 500, 1000, 5000, 10_000)),
        (500, 400),
        (500, 800),
    )
    models: int = 5
    starts: int = 4
    retrain: bool | None = None

    def training(self, seconds):
        """How a guide is trained that the full benchmark trains for so many seconds."""
        if self.simulations is None:
            return {"budget": seconds}
        return {"num_simulations": self.simulations, "options": self.options}

    def fit(self, model, guide, cohort, num_draws):
        """A fit from starts of the prior, and the seconds that it took."""
        begin = time.perf_counter()
        fit = pa.fit_population(
            model,
            cohort,
            guide=guide,
            num_draws=num_draws,
            num_starts=self.starts,
            retrain=self.retrain,
            seed=1,
        )
        return fit, time.perf_counter() - begin


SMALL = Amount(1000, 4, 1, 1000, 12, 1000, SHORT, 100, 100, 100, 4, 100, ((4, 50),), 2, 1, False)


def memory():
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def mrna_guide(seconds, folder, amount):
    cohort = mrna_50()
    if folder and (Path(folder) / "guide.json").exists():
        return pa.load_guide(folder, mrna, cohort), None
    begin = time.perf_counter()
    guide = pa.train(mrna, cohort, **amount.training(seconds), seed=1, progress=False)
    if folder:
        guide.save(folder)
    return guide, time.perf_counter() - begin


def error(fit, truth):
    mean, variance = truth.mean(0)[:4], truth.var(0, correction=0)[:4]
    estimates = fit.estimates["typical"][:4], fit.estimates["omega"][:4] ** 2
    return float(torch.cat([estimates[0] - mean, estimates[1] - variance]).pow(2).mean())


def scored_points(guide, cohort, amount):
    """Log likelihoods at the points whose exact values are known."""
    print(f"\nmRNA, {amount.cells} cells: log likelihood at given points, {amount.points:,} draws")
    given = {}
    for name, (population, exact, own) in list(mrna_points().items())[: amount.scored]:
        begin = time.perf_counter()
        likelihood = pa.marginal_likelihood(
            mrna, cohort, population, guide=guide, num_draws=amount.points, seed=1
        )
        exact = exact if len(cohort) == 50 else math.nan
        z = (likelihood.total - exact) / math.hypot(likelihood.total_mc_error, own)
        given[name] = {"value": likelihood.total, "mc_error": likelihood.total_mc_error, "z": z}
        print(
            f"{name:28s} {likelihood.total:10.2f} (exact {exact:.2f}), MC error "
            f"{likelihood.total_mc_error:.2f}, z {z:5.1f}, largest k {float(likelihood.pareto_k.max()):.2f}, "
            f"{time.perf_counter() - begin:.1f} s"
        )
    return given


def benchmark_mrna(guide, sizes, amount):
    results, cohort = {}, mrna_50()[: amount.cells]
    given = scored_points(guide, cohort, amount)
    large, phi = mrna_large()
    for size in sizes:
        data, truth = (cohort, phi[:50]) if size == 50 else (large[:size], phi[:size])
        num_draws = amount.points if size == 50 else amount.draws
        fit, seconds = amount.fit(mrna, guide, data, num_draws)
        k = fit.marginal.pareto_k
        results[str(size)] = {
            "log_likelihood": fit.marginal.total,
            "mc_error": fit.marginal.total_mc_error,
            "mse": error(fit, truth),
            "seconds": seconds,
            "draws": int(fit.marginal.num_draws.max()),
            "converged": fit.converged,
            "poor": int((k > 0.7).sum()),
            "memory_gb": memory(),
        }
        print(f"\nN = {size}: {fit.message}")
        print(json.dumps(results[str(size)]))
        for name, value in fit.estimates.items():
            print(
                f"  {name}: {value.numpy().round(4)} +- {fit.standard_errors[name].numpy().round(4)}"
            )
    return results | {"points": given}


def growth_row(guide, size, draws, retrain):
    """One fit from the truth: a process of its own, whose memory is the fit's."""
    data = mrna_large()[0][:size]
    start = mrna_points()["population_truth_voff1e-3"][0]
    begin = time.perf_counter()
    fit = pa.fit_population(
        mrna, data, guide=guide, start=start, num_draws=draws, retrain=retrain, seed=1
    )
    return {
        "individuals": size,
        "draws": draws,
        "seconds": time.perf_counter() - begin,
        "rounds": fit.num_rounds,
        "memory_gb": memory(),
    }


def benchmark_growth(guide, picture, amount):
    print("\nGrowth: one fit from the truth; N, draws, seconds, rounds, largest memory (GB)")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        guide.save(folder)
        for size, draws in amount.growth:
            command = [sys.executable, __file__, "--guide", folder, "--row", f"{size},{draws}"]
            command += ["--small"] if amount is SMALL else []
            process = subprocess.run(command, check=True, capture_output=True, text=True)
            row = json.loads(process.stdout.splitlines()[-1])
            rows.append(row)
            print(
                f"{row['individuals']:6d} {row['draws']:6d} {row['seconds']:8.1f} "
                f"{row['rounds']:4d} {row['memory_gb']:6.2f}",
                flush=True,
            )
    if picture:
        growth_figure(rows, picture)
    return rows


def growth_figure(rows, picture):
    import matplotlib.pyplot as plt

    rows = [r for r in rows if r["draws"] == 200]
    sizes = [r["individuals"] for r in rows]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, name, label in zip(
        axes, ("seconds", "memory_gb"), ("wall time (s)", "largest memory (GB)"), strict=True
    ):
        axis.loglog(sizes, [r[name] for r in rows], "o-")
        axis.set(xlabel="individuals of 180 observations", ylabel=label)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=150)
    plt.close(figure)


# Theophylline: several population models by one guide.


def theophylline_model(weight=False, full=False, combined=False):
    """Population models of the same individual parameters (log ka, CL, V)."""

    def model(cohort):
        center = torch.tensor([0.5, 1.0, 3.5])
        typical = pyro.sample("typical", dist.Normal(center, 1.0).to_event(1))
        omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
        a = pyro.sample("a", dist.HalfNormal(1.0))
        b = pyro.sample("b", dist.HalfNormal(0.3)) if combined else torch.zeros(())
        mean = typical
        if weight:
            slope = pyro.sample("slope", dist.Normal(0.75, 1.0))
            shift = slope * (cohort.covariates["weight"] / 70).log()
            mean = typical + torch.stack([0 * shift, shift, 0 * shift], -1)
        distribution = dist.Normal(mean, omega).to_event(1)
        if full:
            corr = pyro.sample("corr", dist.LKJCholesky(3, 2.0))
            distribution = dist.MultivariateNormal(mean, scale_tril=omega[:, None] * corr)
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", distribution)
            ka, cl, v = phi.exp().unbind(-1)
            c = cohort["concentration"]
            predicted = nlme.one_compartment(c.times, cohort.doses, ka=ka, cl=cl, v=v)
            distribution = nlme.combined_error(predicted, a[..., None], b[..., None])
            pyro.sample("concentration", distribution.mask(c.observed).to_event(1), obs=c.values)

    return model


def benchmark_theophylline(amount):
    cohort, begin = pa.datasets.theophylline(), time.perf_counter()
    models = {
        "base": theophylline_model(),
        "weight on CL": theophylline_model(weight=True),
        "full Omega": theophylline_model(full=True),
        "combined error": theophylline_model(combined=True),
        "all three": theophylline_model(weight=True, full=True, combined=True),
    }
    guide = pa.train(
        models["combined error"], cohort, **amount.training(90.0), seed=1, progress=False
    )
    models = dict(list(models.items())[: amount.models])
    print(f"\nTheophylline: one guide ({time.perf_counter() - begin:.0f} s), {len(models)} models")
    fits, seconds = {}, {}
    for name, model in models.items():
        fits[name], seconds[name] = amount.fit(model, guide, cohort, amount.draws)
        print(f"{name:16s} {seconds[name]:5.1f} s  {fits[name].message}")
    table = pa.compare(fits)
    print(table)
    base = fits["base"]
    tests = {n: pa.likelihood_ratio_test(base, f) for n, f in fits.items() if n != "base"}
    for name, test in tests.items():
        print(
            f"base against {name}: {test.statistic:.3f} (MC error {test.mc_error:.3f}), "
            f"{test.degrees_of_freedom} df, p {test.p_value:.3f}"
        )
    return {
        name: {
            "minus2ll": fit.minus2ll,
            "seconds": seconds[name],
            "converged": fit.converged,
            "difference": tests[name].statistic if name in tests else 0.0,
            "mc_error": tests[name].mc_error if name in tests else 0.0,
        }
        for name, fit in fits.items()
    }


def parsed():
    """The arguments of the command line, and the sizes of the run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--training", type=float, default=540.0)
    parser.add_argument("--cohorts", type=int, default=200)
    parser.add_argument("--sizes", default="50,1000,10000")
    parser.add_argument("--guide", default="")
    parser.add_argument("--picture", default="")
    parser.add_argument("--row", default="", help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    arguments = parser.parse_args()
    amount = SMALL if arguments.small else Amount()
    if arguments.small:
        arguments.only = arguments.only or "theophylline,coverage"
        arguments.cohorts, arguments.sizes = 1, "4"
    return arguments, amount


def main():
    arguments, amount = parsed()
    if arguments.row:
        guide, _ = mrna_guide(arguments.training, arguments.guide, amount)
        size, draws = (int(x) for x in arguments.row.split(","))
        print(json.dumps(growth_row(guide, size, draws, amount.retrain)))
        return
    wanted, results = (arguments.only or EVERYTHING).split(","), {}
    if {"mrna", "growth"} & set(wanted):
        if not REFERENCES.exists():
            print(f"The mRNA data are not there ({REFERENCES}): skipped.")
            wanted = [x for x in wanted if x not in ("mrna", "growth")]
        else:
            guide, seconds = mrna_guide(arguments.training, arguments.guide, amount)
            print(f"mRNA guide: {seconds or 0:.0f} s of training, {guide.history.num_steps} steps")
            results["training_seconds"] = seconds
    if "mrna" in wanted:
        results["mrna"] = benchmark_mrna(
            guide, [int(x) for x in arguments.sizes.split(",")], amount
        )
    if "growth" in wanted:
        results["growth"] = benchmark_growth(guide, arguments.picture, amount)
    if "theophylline" in wanted:
        results["theophylline"] = benchmark_theophylline(amount)
    if "coverage" in wanted:
        results["coverage"] = benchmark_coverage(arguments.cohorts, amount)
    if "experiments" in wanted:
        results["experiments"] = benchmark_experiments(min(arguments.cohorts, 100), amount)
    if "likelihood_free" in wanted:
        import likelihood_free

        results["likelihood_free"] = likelihood_free.run()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
