"""A sinusoid of unknown frequency, with 41 times of which up to 21 are missing.

y = sin(2 pi a t) + b + noise of 0.05, a ~ U(0.1, 1), b ~ N(0, 0.25^2). In a second setting each
data set has times of its own. The posterior is narrow and Gaussian. A network does not read precise
times well; the model's own density corrects this.
"""

import argparse
import math
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized.encode import TimeLabels
from pyro_amortized.missing import Dropout, NumberMissing, Schedule

NOISE = 0.05


# (model begins)
def model(cohort):
    with pyro.plate("individual", len(cohort)):
        a = pyro.sample("a", dist.Uniform(0.1, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 0.25))
        y = cohort["y"]
        wave = torch.sin(2 * math.pi * a[..., None] * y.times) + b[..., None]
        distribution = dist.Normal(wave, NOISE).mask(y.observed).to_event(1)
        pyro.sample("y", distribution, obs=y.values)


times = torch.linspace(0.0, 10.0, 41)
random_missing = Schedule({"y": times}, NumberMissing(0, 21))
first_only = Schedule({"y": times}, Dropout(least=2))
# (model ends)


class OwnTimes:
    """Every data set has 41 times of its own on [0, 10], of which up to 21 are missing."""

    missing = NumberMissing(0, 21)

    def complete(self, num, generator):
        own = (10 * torch.rand(num, 41, generator=generator, dtype=torch.float64)).sort(1).values
        return pa.Cohort({"y": pa.Series(own, torch.ones_like(own))})

    def __call__(self, num, generator):
        return self.missing(self.complete(num, generator), generator)


def main(output, budget):
    design, options = OwnTimes(), {"budget": budget, "seed": 1, "progress": False}
    labels = pa.train(model, design, networks=pa.Networks(TimeLabels()), **options)
    tokens = pa.train(model, design, **options)
    guides = {
        "time labels": labels,
        "tokens with Fourier moments": tokens,
        "the same, sharpened": pa.sharpen(tokens, design, **options),
    }
    generator = torch.Generator().manual_seed(3)
    plan = design.complete(300, generator)
    truth = tokens.structure.draw_individuals(plan, {}, 1, generator)[0]
    cohort, _ = tokens.structure.simulate(plan, truth, torch.zeros(300, 0), {}, generator)
    cohort = design.missing(cohort, generator)
    true = 0.1 + 0.9 * truth[:, 0].sigmoid()
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
    for panel, (name, guide) in zip(panels, guides.items(), strict=True):
        torch.manual_seed(0)
        draws = guide.individual_posterior(cohort, {}).sample((400,))
        a = 0.1 + 0.9 * draws[..., 0].sigmoid()
        low, middle, high = a.quantile(torch.tensor([0.1, 0.5, 0.9]).double(), 0)
        panel.errorbar(true, middle - true, [middle - low, high - middle], fmt=".", lw=0.6, ms=3)
        panel.axhline(0, color="black", lw=1)
        panel.set(title=name, xlabel="true frequency a")
    panels[0].set_ylabel("posterior of a - true a (median, 80 %)")
    panels[0].set_ylim(-0.02, 0.02)
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "sinusoid.png", dpi=130)
    print("Time labels lose the frequency, moments bring it near, the model finds it.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/missing_data"))
    parser.add_argument(
        "--budget", default="60s", help="for each of two trainings, and for sharpening"
    )
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget)
