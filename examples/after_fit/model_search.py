"""Which covariates matter for phenobarbital in neonates? A search from a model without any.

The search tests weight and Apgar score on clearance and volume, their correlation and the residual
error by score tests, without a fit. It fits the most promising model, and goes on from it. The
path, the inclusion frequencies in bootstrapped cohorts and the lines to write into the program are
the result.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import datasets, nlme
from pyro_amortized.diagnostics import plots


# (model begins)
def model(cohort):
    names = {"labels": ["CL", "V"]}
    law = dist.Normal(torch.tensor([-5.0, 0.3]), 1.0).to_event(1)
    typical = pyro.sample("typical", law, infer=names)
    omega = pyro.sample("omega", dist.HalfNormal(0.5 * torch.ones(2)).to_event(1), infer=names)
    b = pyro.sample("b", dist.HalfNormal(0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1), infer=names)
        cl, v = phi.exp().unbind(-1)
        y = cohort["concentration"]
        f = nlme.one_compartment(y.times, cohort.doses, cl=cl, v=v)
        error = nlme.proportional_error(f, b[..., None]).mask(y.observed).to_event(1)
        pyro.sample("concentration", error, obs=y.values)
        # (model ends)


def main(output, num_replicates):
    # (search begins)
    fit = pa.fit_population(model, datasets.phenobarbital(), seed=1, progress=False)
    rule = pa.SearchRule(forward=0.01, num_replicates=num_replicates)
    found = pa.search(fit, covariates=["weight", "apgar"], residual=True, rule=rule)
    print(found)
    # (search ends)
    output.mkdir(parents=True, exist_ok=True)
    plots.searched_path(found).savefig(output / "model_search.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--replicates", type=int, default=200)
    arguments = parser.parse_args()
    main(arguments.output, arguments.replicates)
