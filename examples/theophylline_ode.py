"""Theophylline with the dynamics as a differential equation: the same result as the closed form.

The model is that of the quickstart, except that :func:`pyro_amortized.nlme.solve` computes the
prediction. A guide trained with either of the two models serves both, because their individual
parameters are the same.
"""

import torch
from quickstart import cohort

from pyro_amortized import nlme


# (dynamics begins)
def absorption(t, x, p):
    """Depot and central compartment; doses enter the depot, the first state."""
    depot, central = x.unbind(-1)
    absorbed = p["ka"] * depot
    return torch.stack([-absorbed, absorbed - p["cl"] / p["v"] * central], -1)


def concentration(series, doses, ka, cl, v):
    parameters = {"ka": ka, "cl": cl, "v": v}
    states = nlme.solve(absorption, torch.zeros(2), series.times, parameters, doses=doses)
    return states[..., 1] / v[..., None]


# (dynamics ends)


def main():
    generator = torch.Generator().manual_seed(1)
    center = torch.tensor([0.5, 1.0, 3.5], dtype=torch.float64)
    noise = torch.randn(200, len(cohort), 3, generator=generator, dtype=torch.float64)
    ka, cl, v = (center + 0.5 * noise).exp().unbind(-1)
    series = cohort["concentration"]
    solved = concentration(series, cohort.doses, ka, cl, v)
    closed = nlme.one_compartment(series.times, cohort.doses, ka=ka, cl=cl, v=v)
    difference = ((solved - closed).abs() / closed.abs().clamp(min=1e-3)).max()
    print(f"{closed.numel()} concentrations, largest relative difference {float(difference):.1e}")
    return float(difference)


if __name__ == "__main__":
    main()
