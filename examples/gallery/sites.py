"""Eight sites of 20 individuals: a clearance that varies between sites and within them.

The individuals of a site share an effect. Individuals are integrated out by importance sampling,
and the effects of the sites by quadrature over the likelihood of their individuals.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure

import pyro_amortized as pa
from pyro_amortized import nlme

NUM_SITES = 8
TRUTH = {
    "typical": torch.tensor([1.4, 3.5]),
    "omega": torch.tensor([0.25, 0.2]),
    "between": torch.tensor(0.3),
    "b": torch.tensor(0.15),
}


# (model begins)
def model(cohort):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([1.0, 3.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(0.5 * torch.ones(2)).to_event(1))
    between = pyro.sample("between", dist.HalfNormal(0.5))
    b = pyro.sample("b", dist.HalfNormal(0.5))
    with pyro.plate("site", NUM_SITES):
        effect = pyro.sample("effect", dist.Normal(0.0, between))
    site = cohort.covariates["site"].long()
    one = torch.tensor([1.0, 0.0], dtype=torch.float64)
    with pyro.plate("individual", len(cohort)):
        mean = typical + effect[..., site, None] * one
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        cl, v = phi.exp().unbind(-1)
        y = cohort["y"]
        prediction = nlme.one_compartment(y.times, cohort.doses, cl=cl, v=v)
        error = nlme.proportional_error(prediction, b[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


# (model ends)


def simulated(num_each=20, seed=1):
    num = NUM_SITES * num_each
    site = torch.arange(num).double() // num_each
    design = nlme.study(
        [0.5, 2, 6, 12],
        nlme.regimen(100.0),
        num_individuals=num,
        series="y",
        covariates={"site": site},
    )
    generator = torch.Generator().manual_seed(seed)
    truth = {n: x.double() for n, x in TRUTH.items()}
    truth["effect"] = truth["between"] * torch.randn(NUM_SITES, generator=generator).double()
    structure = pa.read_structure(model, design)
    return pa.simulate_population(structure, design, truth, seed=seed), truth["effect"]


def main(output, num_each):
    cohort, truth = simulated(num_each)
    fit = pa.fit_levels(model, cohort, seed=1)
    print(fit.summary())
    mean, sd = fit.effects["effect"], fit.effect_deviations["effect"]
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    ax = figure.subplots()
    place = torch.arange(NUM_SITES) + 1
    ax.errorbar(place, mean, 1.96 * sd, fmt="o", color="#c8553d", label="estimate, 95 % interval")
    ax.plot(place, truth, "_", ms=14, color="#1f2a44", label="simulated with")
    ax.axhline(0, color="#8a8f98", lw=0.8)
    ax.set(xlabel="site", ylabel="effect on log clearance")
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "sites.png", dpi=110)
    print("The variability between sites is told from that within them.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--individuals", type=int, default=20, help="of each site")
    arguments = parser.parse_args()
    main(arguments.output, arguments.individuals)
