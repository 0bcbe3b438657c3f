"""Indometacin intravenously: two compartments, proportional error."""

import pyro
import pyro.distributions as dist
import torch
from study import run

from pyro_amortized import datasets, nlme

cohort = datasets.indometh()


def model(cohort):
    center = torch.tensor([2.1, 1.9, 2.8])
    typical = pyro.sample("typical", dist.Normal(center, 0.5).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(0.5 * torch.ones(3)).to_event(1))
    v = pyro.sample("v", dist.LogNormal(2.2, 0.3))  # L, the same in all: its variance would be 0
    b = pyro.sample("b", dist.HalfNormal(0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        cl, q, v2 = phi.exp().unbind(-1)  # L/h, L/h, L
        y = cohort["concentration"]
        f = nlme.two_compartments(y.times, cohort.doses, cl=cl, v=v.expand_as(cl), q=q, v2=v2)
        distribution = nlme.proportional_error(f, b[..., None]).mask(y.observed).to_event(1)
        pyro.sample("concentration", distribution, obs=y.values)


if __name__ == "__main__":
    run("indometh", model, cohort)
