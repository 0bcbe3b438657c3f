"""An epidemic with three compartments, in which every value may be missing.

The same model is written with an ODE and with binomial steps that have no density. ODE: dS = -b S I
/ N, dI = b S I / N - c I, dR = c I, N = 1000, (999, 1, 0), 21 times on [0, 180], y = (S, I, R) / N
with noise 0.05. Steps: every 0.1, infection rate beta (I + 0.5) / N, observed without noise at 21
times on [0, 50].
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from torchdiffeq import odeint

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.missing import NumberMissing, Schedule

NOISE, NUM = 0.05, 1000
times = torch.linspace(0.0, 180.0, 21, dtype=torch.float64)
step_times = torch.linspace(0.0, 50.0, 21, dtype=torch.float64)


def epidemic(b, c):
    """Shares (S, I, R) / N, shape (individual, time, 3); Runge-Kutta steps of one day."""

    def slope(t, state):
        s, i, _ = state
        return -b * s * i, b * s * i - c * i, c * i

    start = [torch.full_like(b, share / NUM) for share in (999.0, 1.0, 0.0)]
    parts = odeint(slope, tuple(start), times.to(b), method="rk4", options={"step_size": 1.0})
    return torch.stack(parts, -1).transpose(0, 1)


# (model begins)
def model(cohort):
    with pyro.plate("individual", len(cohort)):
        loc, scale = torch.tensor([-1.0, -1.5]), torch.tensor(0.25)
        log_bc = pyro.sample("log_bc", dist.Normal(loc, scale).to_event(1))
        b, c = (10**log_bc).unbind(-1)
        y = cohort["y"]
        distribution = dist.Normal(epidemic(b, c), NOISE).mask(y.observed).to_event(2)
        pyro.sample("y", distribution, obs=y.values)


random_missing = Schedule({"y": times}, NumberMissing(0, 15), channels={"y": 3})
# (model ends)


def binomial_steps(beta, gamma):
    """One path of shares (S, I, R) / N, shape (individual, time, 3)."""
    s, i = torch.full_like(beta, NUM - 1.0), torch.ones_like(beta)
    states = [torch.stack([s, i, NUM - s - i], -1)]
    for _ in step_times[1:]:
        for _ in range(25):
            infected = torch.binomial(s, 1 - torch.exp(-0.1 * beta * (i + 0.5) / NUM))
            removed = torch.binomial(i, 1 - torch.exp(-0.1 * gamma))
            s, i = s - infected, i + infected - removed
        states.append(torch.stack([s, i, NUM - s - i], -1))
    return torch.stack(states, -2) / NUM


# (steps begin)
def stochastic_model(cohort):
    with pyro.plate("individual", len(cohort)):
        beta = pyro.sample("beta", dist.Uniform(0.01, 1.0))
        gamma = pyro.sample("gamma", dist.Uniform(0.0, beta))
        y = cohort["y"]
        distribution = nlme.Simulated(lambda: binomial_steps(beta, gamma), y.values.shape)
        pyro.sample("y", distribution.mask(y.observed).to_event(2), obs=y.values)


stochastic_design = Schedule({"y": step_times}, NumberMissing(0, 15), channels={"y": 3})
# (steps end)


def main(output, budget):
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    kinds = {
        "ODE": (model, random_missing),
        "binomial steps": (stochastic_model, stochastic_design),
    }
    for panel, (name, (program, design)) in zip(panels, kinds.items(), strict=True):
        guide = pa.train(program, design, budget=budget, seed=1, progress=False)
        generator = torch.Generator().manual_seed(5)
        plan = design.complete(300, generator)
        truth = guide.structure.draw_individuals(plan, {}, 1, generator)[0]
        cohort, _ = guide.structure.simulate(plan, truth, torch.zeros(300, 0), {}, generator)
        cohort = design.missing(cohort, generator)
        torch.manual_seed(0)
        draws = guide.individual_posterior(cohort, {}).sample((300,))
        label = guide.structure.latent_names[1]
        panel.errorbar(truth[:, 1], draws[..., 1].mean(0), draws[..., 1].std(0), fmt=".", lw=0.6)
        panel.plot(*[[truth[:, 1].min(), truth[:, 1].max()]] * 2, color="black", lw=1)
        panel.set(title=name, xlabel=f"true {label}, unconstrained", ylabel="posterior mean and sd")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "sir.png", dpi=130)
    print("The same calls train both; only the ODE has a density that corrects the draws.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/missing_data"))
    parser.add_argument("--budget", default="60s", help="for each of two trainings")
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget)
