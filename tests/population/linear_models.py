"""Variants of the linear Gaussian model, which have an exact likelihood."""

import pyro
import pyro.distributions as dist
import torch


def common_program(cohort):
    """One standard deviation for both parameters."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        observe(cohort, phi, sigma)


def observe(cohort, phi, sigma):
    intercept, slope = phi.unbind(-1)
    y = cohort["y"]
    prediction = intercept[..., None] + slope[..., None] * y.times
    distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
    pyro.sample("y", distribution, obs=y.values)
