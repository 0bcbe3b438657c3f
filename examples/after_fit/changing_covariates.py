"""Which covariates that vary over time matter? A search over coefficients that a fit holds.

An antibiotic is given by continuous infusion for six days, with one concentration at steady state
per day. Renal function and albumin are measured every day. The program has a coefficient for each
of them, the fit holds both at zero, and the search tests and estimates them like its other
candidates. The data are simulated: clearance depends on renal function (exponent 0.6) and on
weight (0.75), not on albumin.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.diagnostics import plots

TRUTH = {"log_cl": 1.6, "omega": 0.3, "b": 0.15, "crcl_on_cl": 0.6, "albumin_on_cl": 0.0}


# (model begins)
def model(cohort):
    log_cl = pyro.sample("log_cl", dist.Normal(1.5, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(0.5))
    b = pyro.sample("b", dist.HalfNormal(0.3))
    crcl_on_cl = pyro.sample("crcl_on_cl", dist.Normal(0.0, 1.0))
    albumin_on_cl = pyro.sample("albumin_on_cl", dist.Normal(0.0, 1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(log_cl, omega), infer={"labels": ["CL"]})
        y = cohort["concentration"]
        crcl, albumin = (cohort.time_varying[n].at(y.times) for n in ("CRCL", "ALB"))
        effects = crcl_on_cl[..., None] * (crcl / 80).log()
        effects = effects + albumin_on_cl[..., None] * (albumin / 30).log()
        cl = (phi[..., None] + effects).exp()  # of every day
        f = cohort.covariates["rate"].unsqueeze(-1) / cl
        error = dist.Normal(f, b[..., None] * f).mask(y.observed)
        pyro.sample("concentration", error.to_event(1), obs=y.values)


# (model ends)


def simulated(num=60, seed=3):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    times = torch.arange(1.0, 7.0).double().expand(num, -1).clone()
    steps = 0.12 * normal(num, 6).cumsum(-1)
    crcl = 80 * (0.35 * normal(num, 1) + steps).exp()
    albumin = 30 * (0.15 * normal(num, 1) + 0.08 * normal(num, 6).cumsum(-1)).exp()
    weight = 70 * (0.2 * normal(num)).exp()
    cohort = pa.Cohort(
        {"concentration": pa.Series(times, torch.ones_like(times))},
        covariates={"rate": torch.full((num,), 100.0).double(), "weight": weight},
        time_varying={"CRCL": pa.Series(times, crcl), "ALB": pa.Series(times, albumin)},
    )

    truth = {n: torch.tensor(x, dtype=torch.float64) for n, x in TRUTH.items()}
    cohort = pa.simulate_population(pa.read_structure(model, cohort), cohort, truth, seed=seed)
    # The weight acts on clearance, which the program does not have: concentrations are scaled.
    y = cohort["concentration"]
    values = y.values / (weight / 70).unsqueeze(-1) ** 0.75
    return cohort.with_values({"concentration": values})


def main(output, num, num_replicates):
    cohort = simulated(num)
    # (search begins)
    held = {"crcl_on_cl": torch.tensor(0.0), "albumin_on_cl": torch.tensor(0.0)}
    fit = pa.fit_population(model, cohort, fixed=held, seed=1, progress=False)
    rule = pa.SearchRule(forward=0.01, num_replicates=num_replicates)
    found = pa.search(fit, covariates=["CRCL", "ALB", "weight"], rule=rule)
    print(found)
    # (search ends)
    output.mkdir(parents=True, exist_ok=True)
    plots.searched_path(found).savefig(output / "changing_covariates.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--individuals", type=int, default=60)
    parser.add_argument("--replicates", type=int, default=200)
    arguments = parser.parse_args()
    main(arguments.output, arguments.individuals, arguments.replicates)
