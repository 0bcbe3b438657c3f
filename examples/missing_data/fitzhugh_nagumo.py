"""FitzHugh-Nagumo: the voltage at 21 times, of which up to 11 are missing.

dv/dt = c (v - v^3 / 3 + w), dw/dt = -(v - a + b w) / c, (v, w)(0) = (-1, 1); v is observed with
noise 0.05. The prior is log10 a, b, c ~ U(-2, 0), and the posterior often lies at the bounds of
this box. A network on an unbounded scale puts probability outside the box; sites with bounded
support do not.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from torchdiffeq import odeint

import pyro_amortized as pa
from pyro_amortized.missing import Dropout, NumberMissing, Schedule

NOISE = 0.05
times = torch.linspace(0.0, 15.0, 21, dtype=torch.float64)


def voltage(a, b, c):
    """V at the times, shape (individual, time); classical Runge-Kutta steps of 1/40."""

    def slope(t, state):
        v, w = state
        return c * (v - v**3 / 3 + w), -(v - a + b * w) / c

    start = -torch.ones_like(a), torch.ones_like(a)
    return odeint(slope, start, times.to(a), method="rk4", options={"step_size": 0.025})[0].T


# (model begins)
def model(cohort):
    with pyro.plate("individual", len(cohort)):
        box = dist.Uniform(torch.full((3,), -2.0), 0.0).to_event(1)
        log_abc = pyro.sample("log_abc", box)
        a, b, c = (10**log_abc).unbind(-1)
        y = cohort["y"]
        distribution = dist.Normal(voltage(a, b, c), NOISE).mask(y.observed).to_event(1)
        pyro.sample("y", distribution, obs=y.values)


random_missing = Schedule({"y": times}, NumberMissing(0, 11))
first_only = Schedule({"y": times}, Dropout(least=2))
# (model ends)


def main(output, budget, num_draws):
    guide = pa.train(model, random_missing, budget=budget, seed=1, progress=False)
    generator = torch.Generator().manual_seed(5)
    plan = random_missing.complete(4, generator)
    truth = guide.structure.draw_individuals(plan, {}, 1, generator)[0]
    cohort, _ = guide.structure.simulate(plan, truth, torch.zeros(4, 0), {}, generator)
    cohort = random_missing.missing(cohort, generator)
    individuals = pa.sample_individuals(model, cohort, {}, guide=guide, num_draws=num_draws)
    predicted = individuals.predict(400)["y"]
    low, middle, high = predicted.quantile(torch.tensor([0.05, 0.5, 0.95]).double(), 0)
    figure, panels = plt.subplots(1, 4, figsize=(12, 3), sharey=True, layout="constrained")
    for i, panel in enumerate(panels):
        y, seen = cohort["y"], cohort["y"].observed[i]
        panel.fill_between(times, low[i], high[i], alpha=0.3, label="90 % predicted")
        panel.plot(times, middle[i])
        panel.plot(times[seen], y.values[i][seen], "k.", label="recorded")
        panel.set(xlabel="time", title=f"{int(seen.sum())} of 21 recorded")
    panels[1].legend(loc="upper right")
    panels[0].set_ylabel("v")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "fitzhugh_nagumo.png", dpi=130)
    ess = individuals.estimate.ess / individuals.num_draws
    print(f"Effective share of the corrected draws: {[round(float(x), 2) for x in ess]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/missing_data"))
    parser.add_argument("--budget", default="90s")
    parser.add_argument("--draws", type=int, default=2000, help="draws per individual")
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget, arguments.draws)
