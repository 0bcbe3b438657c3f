"""Warfarin, pharmacokinetics: one compartment with absorption, combined error."""

import pyro
import pyro.distributions as dist
import torch
from study import run

from pyro_amortized import datasets, nlme

cohort = datasets.warfarin()


def model(cohort):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([-0.5, -2.0, 2.1]), 0.5).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.tensor([1.0, 0.5, 0.5])).to_event(1))
    a = pyro.sample("a", dist.HalfNormal(1.0))
    b = pyro.sample("b", dist.HalfNormal(0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))  # log ka, log CL, log V
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["concentration"]
        f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        distribution = nlme.combined_error(f, a[..., None], b[..., None])
        pyro.sample("concentration", distribution.mask(y.observed).to_event(1), obs=y.values)


if __name__ == "__main__":
    run("warfarin", model, cohort)
