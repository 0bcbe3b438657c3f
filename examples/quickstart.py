"""From a Pyro model to a population fit in one call. The README shows this file."""

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import datasets, nlme

cohort = datasets.theophylline()  # or nlme.read_table("data.csv") with NONMEM columns


def model(cohort):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))  # log ka, CL, V
        ka, cl, v = phi.exp().unbind(-1)
        series = cohort["concentration"]
        conc = nlme.one_compartment(series.times, cohort.doses, ka=ka, cl=cl, v=v)
        distribution = dist.Normal(conc, sigma[..., None]).mask(series.observed).to_event(1)
        pyro.sample("concentration", distribution, obs=series.values)


if __name__ == "__main__":
    fit = pa.fit_population(model, cohort, seed=1)
    print(fit.summary())
