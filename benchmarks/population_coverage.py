"""Coverage of intervals: a model whose likelihood is closed, and two experiments in one model."""

import sys
import time
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import Cohort, Doses, Series, nlme

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.exact import TRUTH, linear_cohort, linear_program


# Coverage: the linear Gaussian model of the tests, whose likelihood is closed.


NAMES = ["mean[0]", "mean[1]", "omega[0]", "omega[1]", "sigma"]
INTERVALS = ["standard error", "profile", "bootstrap"]


def intervals(fit, amount):
    """Lower and upper ends of the 95 % intervals of all parameters, by kind."""
    rows = fit.summary().parameters
    profiles = [pa.profile_likelihood(fit, name) for name in NAMES]
    boot = pa.bootstrap(
        fit, num_replicates=amount.replicates, num_draws=amount.replicate_draws, seed=1
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
