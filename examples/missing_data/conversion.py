"""A reversible reaction observed at few times: fill in, mark as missing, impute, delete.

dx1/dt = -k1 x1 + k2 x2, dx2/dt = k1 x1 - k2 x2, x(0) = (1, 0); x2 is observed with noise 0.015.
Three networks learn the posterior of the rates from three times of which up to two are missing. The
first gets an indicator of what is missing, the second gets 0.5 in place of a missing value, and the
third was trained on complete data only and gets interpolated values. The figure shows their
posteriors from the same incomplete data beside the exact posterior.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.encode import FillIn, Indicator
from pyro_amortized.missing import NumberMissing, Schedule

NOISE, LOC, SCALE = 0.015, -0.75, 0.25  # log10 of the rates


# (model begins)
def model(cohort):
    with pyro.plate("individual", len(cohort)):
        log_k = pyro.sample("log_k", dist.Normal(torch.full((2,), LOC), SCALE).to_event(1))
        k1, k2 = (10**log_k).unsqueeze(-1).unbind(-2)
        y = cohort["y"]
        x2 = k1 / (k1 + k2) * (1 - torch.exp(-(k1 + k2) * y.times))
        distribution = dist.Normal(x2, NOISE).mask(y.observed).to_event(1)
        pyro.sample("y", distribution, obs=y.values)


three_points = Schedule({"y": [0.0, 5.0, 10.0]}, NumberMissing(0, 2))
# (model ends)
one_or_two = Schedule({"y": [0.0, 5.0, 10.0]}, NumberMissing(1, 2))
complete = Schedule({"y": [0.0, 5.0, 10.0]})
eleven_points = Schedule({"y": torch.arange(11.0)}, NumberMissing(0, 6))


def interpolated(cohort):
    """Missing values are interpolated between the recorded ones and marked as recorded."""
    y, num = cohort["y"], cohort["y"].values.shape[1]
    place = torch.arange(num).expand_as(y.values)
    before = torch.where(y.observed, place, -1).cummax(1).values
    after = torch.where(y.observed, place, num).flip(1).cummin(1).values.flip(1)
    left, right = torch.where(before < 0, after, before), torch.where(after == num, before, after)
    t0, t1 = y.times.gather(1, left), y.times.gather(1, right)
    y0, y1 = y.values.gather(1, left), y.values.gather(1, right)
    share = (y.times - t0) / torch.where(right > left, t1 - t0, 1.0)
    values = torch.where(y.observed, y.values, y0 + share.clamp(0, 1) * (y1 - y0))
    return pa.Cohort({"y": pa.Series(y.times, values)}, ids=cohort.ids)


def main(output, budget):
    options = {"budget": budget, "seed": 1, "progress": False}
    guides = {
        "indicator of missing values": pa.train(
            model, three_points, networks=pa.Networks(encoding=Indicator()), **options
        ),
        "0.5 for missing values": pa.train(
            model, three_points, networks=pa.Networks(encoding=FillIn(0.5)), **options
        ),
        "linear interpolation": pa.train(model, complete, **options),
    }
    times = torch.tensor([[0.0, 5.0, 10.0]])
    values = torch.tensor([[0.0, 0.5, 0.62]])  # the middle one is not recorded
    observed = torch.tensor([[True, False, True]])
    cohort = pa.Cohort({"y": pa.Series(times, values, observed)}).to(dtype=torch.float64)
    axis = torch.linspace(-1.6, 0.1, 220, dtype=torch.float64)
    first = next(iter(guides.values()))
    points = torch.cartesian_prod(axis, axis).unsqueeze(1)
    density = first.structure.log_density(cohort, points, {})
    exact = (density.observation + density.individual).flatten().softmax(0).reshape(220, 220)
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.7), sharey=True, layout="constrained")
    levels = exact.max() * torch.tensor([0.01, 0.1, 0.5])
    for panel, (name, guide) in zip(panels, guides.items(), strict=True):
        seen = interpolated(cohort) if name == "linear interpolation" else cohort
        log_q = guide.individual_posterior(seen, {}).log_prob(points).flatten()
        panel.contourf(axis, axis, log_q.softmax(0).reshape(220, 220).T, 20, cmap="Blues")
        panel.contour(axis, axis, exact.T, levels=levels, colors="black", linewidths=1)
        panel.set(title=name, xlabel="log10 k1")
    panels[0].set_ylabel("log10 k2")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "conversion.png", dpi=130)
    print("Only the network with the indicator gives the exact posterior (black lines).")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/missing_data"))
    parser.add_argument("--budget", default="20s", help="for each of three trainings")
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget)
