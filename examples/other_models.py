"""Hierarchical models as their authors published them, with arrays, plates and names of their own.

Each of them runs under ``adapt`` without a change: the eight schools, radon in Minnesota with
varying slopes (observations end to end, indexed by county), logistic growth of orange trees, and
seizures by a Poisson model with random intercepts. The script trains a guide for each model. It
prints the posterior means beside those of NUTS on the same model.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS

import pyro_amortized as pa
from pyro_amortized import Cohort, Series, datasets

DATA = Path(__file__).parent / "data"


# (their models begin)
def eight_schools(sigma, y):
    """Rubin (1981)."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("J", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def radon_varying_slopes(county, floor, log_radon, num_counties):
    """Gelman and Hill (2007)."""
    mu_a = pyro.sample("mu_a", dist.Normal(0.0, 5.0))
    sigma_a = pyro.sample("sigma_a", dist.HalfNormal(1.0))
    mu_b = pyro.sample("mu_b", dist.Normal(0.0, 5.0))
    sigma_b = pyro.sample("sigma_b", dist.HalfNormal(1.0))
    with pyro.plate("counties", num_counties):
        a = pyro.sample("a", dist.Normal(mu_a, sigma_a))
        b = pyro.sample("b", dist.Normal(mu_b, sigma_b))
    sigma_y = pyro.sample("sigma_y", dist.HalfNormal(2.0))
    mean = a[..., county] + b[..., county] * floor
    with pyro.plate("measurements", len(log_radon)):
        pyro.sample("log_radon", dist.Normal(mean, sigma_y), obs=log_radon)


def growth_of_trees(age, circumference):
    """Pinheiro and Bates (2000): logistic growth, the asymptote varies between trees."""
    asymptote = pyro.sample("asymptote", dist.Normal(190.0, 40.0))
    spread = pyro.sample("spread", dist.HalfNormal(40.0))
    middle = pyro.sample("middle", dist.Normal(700.0, 150.0))
    scale = pyro.sample("scale", dist.LogNormal(5.9, 0.3))
    noise = pyro.sample("noise", dist.HalfNormal(15.0))
    trees = pyro.plate("trees", circumference.shape[0], dim=-2)
    ages = pyro.plate("ages", circumference.shape[1], dim=-1)
    with trees:
        final = pyro.sample("final", dist.Normal(asymptote, spread))
        with ages:
            mean = final * torch.sigmoid((age - middle) / scale)
            pyro.sample("circumference", dist.Normal(mean, noise), obs=circumference)


def seizures(x, counts):
    """Thall and Vail (1990): counts of seizures, a random intercept for each patient."""
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("patients", len(x)):
        u = pyro.sample("u", dist.Normal(1.6 + (x * b).sum(-1), tau))
        distribution = dist.Poisson(u.exp()[..., None].expand(*u.shape, counts.shape[-1])).to_event(
            1
        )
        pyro.sample("counts", distribution, obs=counts)


# (their models end)
class Problem(NamedTuple):
    """Original model, its arguments from a cohort, and the adapted model that the library uses."""

    original: object
    arguments: object
    program: object
    cohort: Cohort


def problem(original, arguments, plate, observations, cohort):
    program = pa.adapt(original, arguments, plate=plate, observations=observations)
    return Problem(original, arguments, program, cohort)


def rows_of(name):
    with (DATA / name).open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


# (adapters begin)
def schools_problem():
    effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    cohort = Cohort({"y": Series(torch.zeros(8, 1), effects[:, None])}, covariates={"se": errors})

    def arguments(cohort):
        return cohort.covariates["se"], cohort["y"].values[..., 0]

    return problem(eight_schools, arguments, "J", {"obs": "y"}, cohort)


def radon_problem():
    rows = rows_of("radon.csv")
    counties = [[r for r in rows if r["county"] == j] for j in range(85)]
    width = max(map(len, counties))

    def padded(name):  # NaN is not recorded
        cells = [[r[name] for r in c] + [torch.nan] * (width - len(c)) for c in counties]
        return torch.tensor(cells, dtype=torch.float64)

    floor = padded("floor").nan_to_num(1.0)
    cohort = Cohort({"log_radon": Series(floor, padded("log_radon"))})

    def arguments(cohort):
        s = cohort["log_radon"]
        county = pa.end_to_end(cohort, "log_radon")
        return county, s.times.flatten(), s.values.flatten(), len(cohort)

    names = {"log_radon": "log_radon"}
    return problem(radon_varying_slopes, arguments, "counties", names, cohort)


# (adapters end)
def trees_problem():
    cohort = datasets.orange()

    def arguments(cohort):
        s = cohort["circumference"]
        return s.times, s.values

    names = {"circumference": "circumference"}
    return problem(growth_of_trees, arguments, "trees", names, cohort)


def seizures_problem():
    rows = rows_of("epilepsy.csv")
    first = rows[::4]
    column = {n: torch.tensor([r[n] for r in first]).double() for n in ("base", "progabide", "age")}
    covariates = {
        "base": (column["base"] / 4).log() - 1.75,
        "progabide": column["progabide"],
        "age": column["age"].log() - 3.3,
    }
    counts = torch.tensor([r["seizures"] for r in rows]).double().reshape(-1, 4)
    visits = torch.arange(1.0, 5.0).double().expand(len(first), -1).clone()
    cohort = Cohort({"counts": Series(visits, counts)}, covariates=covariates)

    def arguments(cohort):
        x = torch.stack([cohort.covariates[n] for n in ("base", "progabide", "age")], -1)
        return x, cohort["counts"].values

    return problem(seizures, arguments, "patients", {"counts": "counts"}, cohort)


PROBLEMS = {
    "eight schools": schools_problem,
    "radon": radon_problem,
    "orange trees": trees_problem,
    "seizures": seizures_problem,
}


def nuts(program, cohort, num_samples, warmup, seed=1):
    """NUTS on the model as it is, in double precision."""
    pyro.set_rng_seed(seed)
    kernel = NUTS(program, jit_compile=False, ignore_jit_warnings=True)
    chain = MCMC(kernel, num_samples, warmup, disable_progbar=True)
    chain.run(cohort)
    return chain.get_samples()


def largest_distance(ours, reference):
    """Of the means, in standard deviations of the reference; by site."""
    return {
        n: float(((ours[n].double().mean(0) - x.double().mean(0)) / x.double().std(0)).abs().max())
        for n, x in reference.items()
    }


def main(names, budget, num_samples):
    for name in names:
        _, _, program, cohort = PROBLEMS[name]()
        begin = time.perf_counter()
        guide = pa.train(program, cohort, budget=budget, seed=1, progress=False)
        trained = time.perf_counter()
        ours = pa.AmortizedMCMC(program, 1000, guide=guide, seed=1)
        ours.run(cohort)
        fitted = time.perf_counter()
        reference = nuts(program, cohort, num_samples, num_samples // 2)
        ended = time.perf_counter()
        apart = largest_distance(ours.get_samples(), {n: reference[n] for n in reference})
        print(
            f"\n{name}: {trained - begin:.0f} s of training, then {fitted - trained:.1f} s; "
            f"NUTS {ended - fitted:.0f} s"
        )
        for site, value in reference.items():
            mean = ours.get_samples()[site].mean(0).flatten()[:3].tolist()
            reference_mean = value.mean(0).flatten()[:3].tolist()
            print(
                f"  {site:14s} ours {[round(x, 2) for x in mean]}  NUTS "
                f"{[round(x, 2) for x in reference_mean]}  largest distance {apart[site]:.2f} sd"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PROBLEMS))
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--samples", type=int, default=1000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", pa.AmortizedWarning)
    main(arguments.only.split(","), arguments.budget, arguments.samples)
