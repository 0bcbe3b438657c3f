"""Phenobarbital in neonates: one compartment, repeated intravenous doses, weight on CL and V."""

import pyro
import pyro.distributions as dist
import torch
from study import run

from pyro_amortized import datasets, nlme

cohort = datasets.phenobarbital()


def model(cohort):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([-5.3, 0.0]), 0.5).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(0.5 * torch.ones(2)).to_event(1))
    b = pyro.sample("b", dist.HalfNormal(0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))  # log CL, log V per kg
        cl, v = (phi.exp() * cohort.covariates["weight"].unsqueeze(-1)).unbind(-1)
        y = cohort["concentration"]
        f = nlme.one_compartment(y.times, cohort.doses, cl=cl, v=v)
        distribution = nlme.proportional_error(f, b[..., None]).mask(y.observed).to_event(1)
        pyro.sample("concentration", distribution, obs=y.values)


if __name__ == "__main__":
    run("phenobarbital", model, cohort)
