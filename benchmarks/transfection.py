"""The mRNA data (Froehlich et al. 2018), their model, and simulated cells."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch

from pyro_amortized import Cohort, Series

REFERENCES = Path(__file__).parents[2] / "shared" / "references" / "mrna"


def curve(phi, times):
    """log(p(t) + offset), finite where delta equals gamma."""
    delta, gamma, k, t0, offset = (x[..., None] for x in phi.exp().unbind(-1))
    since = (times - t0).clamp(min=0.0)
    slow, gap = torch.minimum(delta, gamma), (delta - gamma).abs()
    x = gap * since
    ratio = torch.where(x > 1e-8, -torch.expm1(-x) / x.clamp(min=1e-8), 1 - x / 2)
    return (k * since * torch.exp(-slow * since) * ratio + offset).log()


def mrna(cohort):
    center = torch.tensor([-0.5, -4.0, 6.0, -0.5, 2.0])
    typical = pyro.sample(
        "typical", dist.Normal(center, torch.tensor([1.0, 2.0, 1.0, 1.0, 0.5])).to_event(1)
    )
    spread = torch.tensor([0.0, 0.7, -2.0, -1.0, -3.5])
    omega = pyro.sample(
        "omega", dist.LogNormal(spread, torch.tensor([0.5, 0.5, 1.0, 0.7, 1.0])).to_event(1)
    )
    sigma = pyro.sample("sigma", dist.LogNormal(-3.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        y = cohort["y"]
        distribution = (
            dist.Normal(curve(phi, y.times), sigma[..., None]).mask(y.observed).to_event(1)
        )
        pyro.sample("y", distribution, obs=y.values)


def mrna_50():
    table = pd.read_csv(REFERENCES / "mrna_50.csv")
    values, times = (
        torch.tensor(table[name].to_numpy().reshape(50, 180)) for name in ("value", "time")
    )
    return Cohort({"y": Series(times, values)}, ids=tuple(table["variable"][::180]))


def mrna_points():
    points = {}
    for _, row in pd.read_csv(REFERENCES / "exact_points.csv").iterrows():
        numbers = torch.tensor(row.to_numpy()[1:].astype(float))
        population = {"typical": numbers[:5], "omega": numbers[5:10], "sigma": numbers[10]}
        points[row["point"]] = population, float(numbers[11]), float(numbers[12])
    return points


def mrna_large():
    """10,000 simulated cells and their log parameters, by the recipe of the references."""
    np.random.seed(0)  # noqa: NPY002  (the published recipe)
    truth = mrna_points()["population_truth_voff1e-3"][0]
    mean, sd = truth["typical"][:4].numpy(), truth["omega"][:4].numpy()
    phi = np.random.multivariate_normal(mean, np.diag(sd**2), size=10_000)  # noqa: NPY002
    phi = np.concatenate([phi, np.full((10_000, 1), math.log(8))], 1)
    times = torch.arange(1, 181).double() / 6
    clean = np.float32(curve(torch.tensor(phi), times).numpy())
    values = clean + math.sqrt(0.001) * np.random.normal(size=(10_000, 180))  # noqa: NPY002
    series = Series(times.expand(10_000, -1).clone(), torch.tensor(values))
    return Cohort({"y": series}), torch.tensor(phi)
