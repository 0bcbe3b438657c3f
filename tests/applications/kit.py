"""Models whose exposures and best doses are known in closed form."""

import math

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme

SD = 0.3
VALUES = {"typical": [4.0, 70.0, 1.0], "omega": [SD] * 3, "b": 0.1}


def model(cohort):
    """One compartment with absorption; log-normal CL, V and KA; proportional error."""
    center = torch.tensor([1.4, 4.2, 0.0])
    typical = pyro.sample("typical", dist.LogNormal(center, 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    b = pyro.sample("b", dist.HalfNormal(0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical.log(), omega).to_event(1))
        cl, v, ka = phi.exp().unbind(-1)
        y = cohort["y"]
        f = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        pyro.deterministic("effect", f / (f + 1))
        error = nlme.proportional_error(f, b[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def weight_model(cohort):
    """A bolus; clearance grows with weight."""
    cl0 = pyro.sample("cl", dist.LogNormal(1.0, 1.0))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    weight = (cohort.covariates["weight"] / 70).log()
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(cl0.log() + slope * weight, omega))
        y = cohort["y"]
        v = torch.full_like(phi, 20.0)
        f = nlme.one_compartment(y.times, cohort.doses, cl=phi.exp(), v=v)
        error = nlme.additive_error(f, sigma[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


def known(**options):
    return pa.population(model, VALUES, **options)


def patients(num=1, observed=None, values=(1.3, 1.2, 0.5), **options):
    """Patients who had a dose of 100 at time 0."""
    times = torch.tensor([[1.0, 4.0, 24.0]]).double().repeat(num, 1)
    y = torch.tensor([values]).double().repeat(num, 1)
    mask = torch.ones_like(y, dtype=torch.bool) if observed is None else torch.tensor(observed)
    zero = torch.zeros(num, 1).double()
    return pa.Cohort({"y": pa.Series(times, y, mask)}, pa.Doses(zero, zero + 100.0), **options)


def concentration(time, dose=100.0, cl=4.0, v=70.0, ka=1.0):
    """The concentration of the typical individual after a single dose."""
    k = cl / v
    return dose * ka / (v * (ka - k)) * (math.exp(-k * time) - math.exp(-ka * time))


STEADY = pa.Exposure(steady_state=True)  # AUC is then dose / CL
