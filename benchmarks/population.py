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
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import Cohort, Doses, Series, nlme

ROOT = Path(__file__).parents[1]
REFERENCES = ROOT.parent / "shared" / "references" / "mrna"
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]


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


SMALL = Amount(1000, 4, 1, 1000, 12, 1000, SHORT, 100, 100, 100, 4, ((4, 50),), 2, 1, False)


def curve(phi, times):
    """log(p(t) + offset), finite where delta equals gamma."""
    delta, gamma, k, t0, offset = (x[..., None] for x in phi.exp().unbind(-1))
    since = (times - t0).clamp(min=0.0)
    slow, gap = torch.minimum(delta, gamma), (delta - gamma).abs()
    x = gap * since
    ratio = torch.where(x > 1e-8, -torch.expm1(-x) / x.clamp(min=1e-8), 1 - x / 2)
    return (k * since * torch.exp(-slow * since) * ratio + offset).log()


def mrna(cohort):
    center = torch.tensor([-0.5, -4.0, 6.0, -0.5, 2.0])
    typical = pyro.sample(
        "typical", dist.Normal(center, torch.tensor([1.0, 2.0, 1.0, 1.0, 0.5])).to_event(1)
    )
    spread = torch.tensor([0.0, 0.7, -2.0, -1.0, -3.5])
    omega = pyro.sample(
        "omega", dist.LogNormal(spread, torch.tensor([0.5, 0.5, 1.0, 0.7, 1.0])).to_event(1)
    )
    sigma = pyro.sample("sigma", dist.LogNormal(-3.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        y = cohort["y"]
        distribution = (
            dist.Normal(curve(phi, y.times), sigma[..., None]).mask(y.observed).to_event(1)
        )
        pyro.sample("y", distribution, obs=y.values)


def mrna_50():
    table = pd.read_csv(REFERENCES / "mrna_50.csv")
    values, times = (
        torch.tensor(table[name].to_numpy().reshape(50, 180)) for name in ("value", "time")
    )
    return Cohort({"y": Series(times, values)}, ids=tuple(table["variable"][::180]))


def mrna_points():
    points = {}
    for _, row in pd.read_csv(REFERENCES / "exact_points.csv").iterrows():
        numbers = torch.tensor(row.to_numpy()[1:].astype(float))
        population = {"typical": numbers[:5], "omega": numbers[5:10], "sigma": numbers[10]}
        points[row["point"]] = population, float(numbers[11]), float(numbers[12])
    return points


def mrna_large():
    """10,000 simulated cells and their log parameters, by the recipe of the references."""
    np.random.seed(0)  # noqa: NPY002  (the published recipe)
    truth = mrna_points()["population_truth_voff1e-3"][0]
    mean, sd = truth["typical"][:4].numpy(), truth["omega"][:4].numpy()
    phi = np.random.multivariate_normal(mean, np.diag(sd**2), size=10_000)  # noqa: NPY002
    phi = np.concatenate([phi, np.full((10_000, 1), math.log(8))], 1)
    times = torch.arange(1, 181).double() / 6
    clean = np.float32(curve(torch.tensor(phi), times).numpy())
    values = clean + math.sqrt(0.001) * np.random.normal(size=(10_000, 180))  # noqa: NPY002
    series = Series(times.expand(10_000, -1).clone(), torch.tensor(values))
    return Cohort({"y": series}), torch.tensor(phi)


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
            "draws": fit.marginal.num_draws,
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


# Coverage: the linear Gaussian model of the tests, whose likelihood is closed.


NAMES = ["mean[0]", "mean[1]", "omega[0]", "omega[1]", "sigma"]
INTERVALS = ["standard error", "profile", "bootstrap"]


def intervals(fit, amount):
    """Lower and upper ends of the 95 % intervals of all parameters, by kind."""
    rows = fit.summary().parameters
    profiles = [pa.profile_likelihood(fit, name) for name in NAMES]
    boot = pa.bootstrap(
        fit, num_replicates=amount.replicates, num_draws=100 if amount is SMALL else 300, seed=1
    )
    boot = boot.interval()
    low, high = (
        torch.cat([boot[n][side].reshape(-1) for n in ("mean", "omega", "sigma")])
        for side in (0, 1)
    )
    return [
        [(r.lower, r.upper) for r in rows],
        [(p.lower, p.upper) for p in profiles],
        list(zip(low.tolist(), high.tolist(), strict=True)),
    ]


def benchmark_coverage(num_cohorts, amount):
    from tests.exact import TRUTH, linear_cohort, linear_program

    warnings.simplefilter("ignore", pa.AmortizedWarning)
    guide = pa.train(
        linear_program,
        linear_cohort(num=200),
        num_simulations=amount.coverage,
        options=amount.options,
        seed=1,
        progress=False,
    )
    truth = torch.cat([TRUTH["mean"], TRUTH["omega"], TRUTH["sigma"][None]])
    hits, skipped, widths, begin = [], 0, [], time.perf_counter()
    for seed in range(num_cohorts):
        cohort = linear_cohort(num=amount.covered, width=8, missing=0.1, seed=1000 + seed)
        fit, _ = amount.fit(linear_program, guide, cohort, amount.coverage_draws)
        if not bool(fit.estimated.all()):
            skipped += 1
            continue
        bounds = intervals(fit, amount)
        hits.append(
            [[a <= t <= b for (a, b), t in zip(x, truth.tolist(), strict=True)] for x in bounds]
        )
        widths.append([[b - a for a, b in x] for x in bounds])
        if len(hits) % 10 == 0:
            print(f"{len(hits)} cohorts, {time.perf_counter() - begin:.0f} s", flush=True)
    share = torch.tensor(hits).double().mean(0)
    width = torch.tensor(widths).double().median(0).values
    print(
        f"\nCoverage of 95 % intervals, {len(hits)} cohorts of {amount.covered} ({skipped} with a variance of zero), "
        f"{time.perf_counter() - begin:.0f} s"
    )
    for kind, row, wide in zip(INTERVALS, share, width, strict=True):
        cells = [f"{x:.3f} ({w:.3f})" for x, w in zip(row.tolist(), wide.tolist(), strict=True)]
        print(f"{kind:15s} " + "  ".join(f"{n} {x}" for n, x in zip(NAMES, cells, strict=True)))
    covered = {k: row.tolist() for k, row in zip(INTERVALS, share, strict=True)}
    shares = {k: dict(zip(NAMES, row, strict=True)) for k, row in covered.items()}
    return shares | {"cohorts": len(hits), "skipped": skipped}


# Two experiments: other times and doses, a clearance and a residual error of their own.

EXPERIMENTS = {
    "typical": torch.tensor([0.5, 1.0, 3.5]),
    "slower": torch.tensor(-0.4),
    "omega": torch.tensor([0.4, 0.25, 0.2]),
    "sigma": torch.tensor([0.15, 0.25]),
}


def two_experiments(cohort):
    center = torch.tensor([0.3, 0.8, 3.2])
    typical = pyro.sample("typical", dist.Normal(center, 0.7).to_event(1))
    slower = pyro.sample("slower", dist.Normal(0.0, 0.7))
    omega = pyro.sample("omega", dist.LogNormal(-1.2, 0.5).expand([3]).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.5, 0.5).expand([2]).to_event(1))
    second = cohort.covariates["second"]
    one = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    mean = typical + (slower * second)[:, None] * one
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["y"]
        error = torch.where(second == 1, sigma[..., 1], sigma[..., 0])
        predicted = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        distribution = nlme.lognormal_error(predicted, error[..., None])
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def experiments_design(num=24):
    def one(times, amount, second, first):
        shape = (num, len(times))
        values = Series(
            torch.tensor(times).double().expand(shape).clone(), torch.ones(shape).double()
        )
        doses = Doses(times=torch.zeros(num, 1).double(), amounts=torch.full((num, 1), amount))
        return Cohort(
            {"y": values},
            doses=doses,
            covariates={"second": torch.full((num,), second).double()},
            ids=tuple(str(first + i) for i in range(num)),
        )

    rich = one([0.25, 0.5, 1.0, 2.0, 4.0, 7.0, 12.0, 24.0], 320.0, 0.0, 1)
    return pa.concatenate([rich, one([1.5, 6.0, 18.0, 36.0], 500.0, 1.0, 1 + num)])


def benchmark_experiments(num_cohorts, amount):
    warnings.simplefilter("ignore", pa.AmortizedWarning)
    design, begin = experiments_design(), time.perf_counter()
    guide = pa.train(
        two_experiments,
        design,
        num_simulations=amount.experiments,
        options=amount.options,
        seed=1,
        progress=False,
    )
    print(f"\nTwo experiments: {time.perf_counter() - begin:.0f} s of training")
    structure = guide.structure
    truth = {name: value.double() for name, value in EXPERIMENTS.items()}
    expected = structure.unconstrain_population(truth)
    apart, seconds, skipped = [], [], 0
    for seed in range(num_cohorts):
        cohort = pa.simulate_population(structure, design, truth, 100 + seed)
        fit, taken = amount.fit(two_experiments, guide, cohort, amount.coverage_draws)
        seconds.append(taken)
        if not (fit.converged and bool(fit.estimated.all())):
            skipped += 1
            continue
        apart.append((fit.vector - expected) / fit.covariance.diagonal().sqrt())
    z = torch.stack(apart)
    cover = (z.abs() < 1.96).double().mean(0)
    print(
        f"{len(z)} cohorts of 24 + 24 ({skipped} not converged or with a variance of zero), "
        f"{sorted(seconds)[len(seconds) // 2]:.1f} s per fit (median)"
    )
    rows = zip(structure.population_names, z.mean(0), z.std(0), cover, strict=True)
    results = {n: {"bias": float(a), "sd": float(b), "coverage": float(c)} for n, a, b, c in rows}
    for name, row in results.items():
        print(f"  {name:12s} " + "  ".join(f"{k} {x:+.3f}" for k, x in row.items()))
    return results | {"cohorts": len(z), "skipped": skipped}


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
