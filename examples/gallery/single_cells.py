"""Single cells after mRNA transfection: bimodal posteriors, one for every cell, from one training.

The signal of the reporter protein of every cell follows log(p(t) + offset). The parameters are the
release time t0, the translation rate k and the decay rates of mRNA and protein (delta, gamma). The
two decay rates may be exchanged, therefore the posterior of every cell has two modes. The model is
that of Froehlich et al. (2018) and Arruda et al. (2024). The data are simulated from it, with decay
rates that overlap in the population.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure

import pyro_amortized as pa

TRUTH = {
    "typical": torch.tensor([-1.2, -2.0, 0.027, -0.164]).double(),
    "omega": torch.tensor([0.5, 0.5, 0.3, 0.3]).double(),
    "sigma": torch.tensor(0.0316).double(),
}


def model(cohort):
    center = torch.tensor([-1.2, -2.0, 0.0, -0.2])
    typical = pyro.sample("typical", dist.Normal(center, 0.7).to_event(1))
    omega = pyro.sample("omega", dist.LogNormal(torch.full((4,), -1.0), 0.4).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-3.4, 0.4))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        delta, gamma, k, t0 = (x[..., None] for x in phi.exp().unbind(-1))
        y = cohort["signal"]
        since = (y.times - t0).clamp(min=0.0)
        gap = (gamma - delta).abs().clamp(min=1e-6)
        slow = torch.minimum(delta, gamma)
        protein = (
            k
            * since
            * torch.exp(-slow * since)
            * -torch.expm1(-gap * since)
            / (gap * since).clamp(min=1e-9)
        )
        distribution = (
            dist.Normal((protein + 0.1).log(), sigma[..., None]).mask(y.observed).to_event(1)
        )
        pyro.sample("signal", distribution, obs=y.values)


def cells(num=40):
    """Cells seen every hour for 30 hours."""
    times = torch.arange(1.0, 31.0).double().expand(num, -1).clone()
    design = pa.Cohort({"signal": pa.Series(times, torch.zeros(num, 30).double())})
    structure = pa.read_structure(model, design)
    return pa.simulate_population(structure, design, TRUTH, seed=1)


def main(output, budget):
    cohort = cells()
    guide = pa.train(model, cohort, budget=budget, seed=1)
    fit = pa.fit_population(model, cohort, guide=guide, start=TRUTH, seed=1)
    print(fit.summary())
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    y = cohort["signal"]
    left.plot(y.times.T[:, :20], y.values.T[:, :20], color="#8a8f98", lw=0.8)
    left.set(xlabel="hours", ylabel="log fluorescence", title="twenty of forty cells")
    draws = fit.individuals.resampled(600, seed=1)[:, 0]
    right.plot(draws[:, 0], draws[:, 1], "o", ms=2.5, color="#c8553d", alpha=0.5)
    right.set(
        xlabel="log delta", ylabel="log gamma", title="one cell: either rate may be the slow one"
    )
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "single_cells.png", dpi=110)
    print("Both modes of every cell are drawn; the population follows from all cells in seconds.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--budget", default="90s", help="time to train")
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget)
