"""Warfarin, concentration and effect: the drug inhibits the production of clotting factors.

Two endpoints with times of their own are computed from one compiled ODE. Its states are the depot,
the central compartment and the prothrombin complex activity, with
d pca/dt = kout (e0 (1 - c / (c50 + c)) - pca).
"""

import pyro
import pyro.distributions as dist
import torch
from study import run

from pyro_amortized import datasets, nlme

cohort = datasets.warfarin()


def turnover(t, x, p):
    depot, central, pca = x.unbind(-1)
    c = central / p["v"]
    effect = p["kout"] * (p["e0"] * (1 - c / (p["c50"] + c)) - pca)
    return torch.stack([-p["ka"] * depot, p["ka"] * depot - p["cl"] * c, effect], -1)


def model(cohort):
    center = torch.tensor([-0.5, -2.0, 2.1, 4.55, -3.0, 0.3])
    typical = pyro.sample("typical", dist.Normal(center, 0.3).to_event(1))
    scale = torch.tensor([1.0, 0.4, 0.4, 0.2, 0.4, 0.6])
    omega = pyro.sample("omega", dist.HalfNormal(scale).to_event(1))
    error = pyro.sample("error", dist.HalfNormal(torch.tensor([1.0, 0.2, 8.0])).to_event(1))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        ka, cl, v, e0, kout, c50 = phi.exp().unbind(-1)
        p = {"ka": ka, "cl": cl, "v": v, "e0": e0, "kout": kout, "c50": c50}
        zero = torch.zeros_like(e0)
        start = torch.stack([zero, zero, e0], -1)
        y, z = cohort["concentration"], cohort["pca"]
        times, split = nlme.merge_times(y.times, z.times)
        at_y, at_z = split(nlme.solve(turnover, start, times, p, doses=cohort.doses, rtol=1e-6))
        a, b, sd = error[..., None, :].unbind(-1)
        distribution = nlme.combined_error(at_y[..., 1] / v.unsqueeze(-1), a, b)
        pyro.sample("concentration", distribution.mask(y.observed).to_event(1), obs=y.values)
        distribution = nlme.additive_error(at_z[..., 2], sd)
        pyro.sample("pca", distribution.mask(z.observed).to_event(1), obs=z.values)


if __name__ == "__main__":
    run("warfarin_turnover", model, cohort, ("concentration", "pca"))
