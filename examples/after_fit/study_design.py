"""The warfarin design of the comparison of software for designs, and cheaper ones.

One compartment with absorption, dose 70 mg, 32 individuals (Nyberg et al. 2015). The expected
standard errors come from exact scores of simulated individuals; the model is not linearised. A
schedule with half of the samples and one without the first hours are compared with the published
one, and the power to find an effect of a covariate on clearance is computed.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots

VALUES = {
    "typical": [0.15, 8.0, 1.0],
    "omega": [0.07**0.5, 0.02**0.5, 0.6**0.5],
    "effect": 0.2,
    "b": 0.1,
}
SCHEDULES = {
    "published": [0.5, 1, 2, 6, 24, 36, 72, 120],
    "half of the samples": [0.5, 2, 24, 120],
    "without the first hours": [6, 12, 24, 36, 72, 120],
}


def model(cohort):
    center = torch.tensor([-2.0, 2.0, 0.0])
    typical = pyro.sample("typical", dist.LogNormal(center, 1.0).to_event(1))  # CL, V, ka
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    effect = pyro.sample("effect", dist.Normal(0.0, 0.5))  # of the group on log CL
    b = pyro.sample("b", dist.HalfNormal(0.3))
    group = cohort.covariates["group"]
    with pyro.plate("individual", len(cohort)):
        zero = torch.zeros_like(group)
        mean = typical.log() + torch.stack([effect * group, zero, zero], -1)
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        cl, v, ka = phi.exp().unbind(-1)
        y = cohort["concentration"]
        f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        error = nlme.proportional_error(f, b[..., None])
        pyro.sample("concentration", error.mask(y.observed).to_event(1), obs=y.values)


def main(output, num_simulated):
    population = pa.population(model, VALUES)
    designs = {
        name: nlme.study(
            times,
            nlme.regimen(70),
            num_individuals=32,
            covariates={"group": [j % 2 for j in range(32)]},
            series="concentration",
        )
        for name, times in SCHEDULES.items()
    }
    result = pa.evaluate_designs(population, designs, num_simulated=num_simulated, seed=1)
    print(result)
    for name, errors in result.items():
        needed = errors.individuals_needed("effect", power=0.8)
        print(f"{name}: power {errors.power('effect'):.2f}; {needed} individuals for 0.80")
    table = result.table([16, 32, 64])
    print(table[table["parameter"] == "effect"].to_string(index=False))
    output.mkdir(parents=True, exist_ok=True)
    plots.expected_errors(result).savefig(output / "study_design.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--simulated", type=int, default=800, help="simulated individuals")
    arguments = parser.parse_args()
    main(arguments.output, arguments.simulated)
