"""Orange trees: logistic growth, a random asymptote, shape parameters common to all trees."""

import pyro
import pyro.distributions as dist
import torch
from study import run

from pyro_amortized import datasets, nlme

cohort = datasets.orange()


def model(cohort):
    asymptote = pyro.sample("asymptote", dist.Normal(190.0, 40.0))
    half = pyro.sample("half", dist.Normal(720.0, 100.0))
    scale = pyro.sample("scale", dist.Normal(350.0, 60.0))
    omega = pyro.sample("omega", dist.HalfNormal(50.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(15.0))
    with pyro.plate("individual", len(cohort)):
        height = pyro.sample("height", dist.Normal(asymptote, omega))
        y = cohort["circumference"]
        f = height.unsqueeze(-1) * torch.sigmoid((y.times - half[..., None]) / scale[..., None])
        distribution = nlme.additive_error(f, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("circumference", distribution, obs=y.values)


if __name__ == "__main__":
    run("orange", model, cohort, ("circumference",))
