"""Theophylline with a limit of quantification of 1 mg/L; values below it are censored (M3)."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import torch
from study import run

from pyro_amortized import datasets, nlme

LIMIT = 1.0


def quantified(cohort):
    """The cohort as a laboratory would report it: nothing below the limit."""
    values = cohort["concentration"].values.clamp(min=LIMIT)
    return replace(cohort.with_values({"concentration": values}))


cohort = quantified(datasets.theophylline())


def model(cohort):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["concentration"]
        f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        distribution = nlme.Censored(nlme.additive_error(f, sigma[..., None]), low=LIMIT)
        pyro.sample("concentration", distribution.mask(y.observed).to_event(1), obs=y.values)


if __name__ == "__main__":
    run("theophylline_censored", model, cohort)
