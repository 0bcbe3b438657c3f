"""A covariate that some individuals lack, as a site of the model.

The body weight of four in ten individuals was not recorded. The model has a distribution of the
weight: recorded weights are observed under it, and a missing one is a latent parameter of its
individual, which the data of the individual inform. The likelihood contains the integral over the
missing weights, so no individual is left out and no value is filled in. The estimates are compared
with those of all weights, of the complete individuals alone, and of the mean weight in place of the
missing ones.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure

import pyro_amortized as pa
from pyro_amortized import nlme

TRUE_EFFECT, MISSING = 0.75, 0.4
SAMPLED = [1.0, 4.0, 10.0, 24.0]


# (model begins)
def model(cohort):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([1.4, 3.7]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(0.5 * torch.ones(2)).to_event(1))
    effect = pyro.sample("effect", dist.Normal(0.0, 1.0))  # of log weight on log CL
    b = pyro.sample("b", dist.HalfNormal(0.3))
    mean = pyro.sample("mean", dist.Normal(0.0, 0.5))  # of log(weight / 70)
    sd = pyro.sample("sd", dist.HalfNormal(0.5))
    record = cohort["weight"]
    with pyro.plate("individual", len(cohort)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))  # of no effect where the weight is known
        weight = nlme.completed(record, 70 * (mean + sd * z).exp())
        law = dist.LogNormal(mean[..., None] + torch.tensor(70.0).log(), sd[..., None])
        pyro.sample("weight", law.mask(record.observed).to_event(1), obs=record.values)
        eta = pyro.sample("eta", dist.Normal(torch.zeros(2), omega).to_event(1))
        cl = (typical[..., 0] + effect * (weight / 70).log() + eta[..., 0]).exp()
        v = (typical[..., 1] + eta[..., 1]).exp()
        y = cohort["concentration"]
        f = nlme.one_compartment(y.times, cohort.doses, cl=cl, v=v)
        error = nlme.proportional_error(f, b[..., None]).mask(y.observed).to_event(1)
        pyro.sample("concentration", error, obs=y.values)
        # (model ends)


def simulated(num, seed):
    """Concentrations after a bolus, and all weights."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight = 70 * (0.25 * normal(num)).exp()
    cl = (1.4 + TRUE_EFFECT * (weight / 70).log() + 0.2 * normal(num)).exp()
    v = (3.7 + 0.2 * normal(num)).exp()
    times = torch.tensor(SAMPLED).double().expand(num, -1).clone()
    doses = pa.Doses(torch.zeros(num, 1).double(), torch.full((num, 1), 100.0).double())
    f = nlme.one_compartment(times, doses, cl=cl, v=v)
    series = pa.Series(times, f * (1 + 0.15 * normal(*f.shape)))
    record = pa.Series(torch.zeros(num, 1).double(), weight.unsqueeze(-1))
    missing = torch.rand(num, 1, generator=generator) < MISSING
    return pa.Cohort({"concentration": series, "weight": record}, doses=doses), missing


def main(output, num, seed=3):
    whole, missing = simulated(num, seed)
    record = whole["weight"]
    incomplete = whole.with_observed({"weight": ~missing})
    filled = torch.where(missing, record.values[~missing].mean(), record.values)
    cohorts = {
        "all weights known": whole,
        "missing ones are sites": incomplete,
        "complete individuals": incomplete[(~missing[:, 0]).nonzero()[:, 0]],
        "mean in their place": replace(
            whole, series={**whole.series, "weight": pa.Series(record.times, filled)}
        ),
    }
    figure = Figure(figsize=(6.5, 2.6), layout="constrained")
    ax = figure.subplots()
    for row, (name, cohort) in enumerate(cohorts.items()):
        fit = pa.fit_population(model, cohort, seed=1, progress=False)
        estimate, error = (float(x["effect"]) for x in (fit.estimates, fit.standard_errors))
        print(f"{name:24} effect {estimate:.3f}, standard error {error:.3f}")
        ax.errorbar(estimate, -row, xerr=1.96 * error, fmt="o", color="#1f2a44", capsize=3)
    ax.axvline(TRUE_EFFECT, color="#c8553d", lw=1, ls="--", label="truth")
    ax.set_yticks([-row for row in range(len(cohorts))], list(cohorts))
    ax.set_xlabel("exponent of the weight on clearance, 95 % interval")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "missing_covariate.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--individuals", type=int, default=60)
    arguments = parser.parse_args()
    main(arguments.output, arguments.individuals)
