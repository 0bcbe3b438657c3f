"""Deleting the missing rows without keeping the times loses what was measured when.

The reversible reaction of conversion.py is observed at 11 times, of which up to 6 are missing at
random. A recurrent network that reads the recorded values in their order gives a posterior that is
far too wide. With the values in their places, as the library reads them by default, the posterior
is exact.
"""

import argparse
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from conversion import eleven_points, model

import pyro_amortized as pa
from pyro_amortized.encode import Deletion
from pyro_amortized.networks import RecurrentNetwork


def main(output, budget):
    networks = {
        "rows deleted": pa.Networks(Deletion(), partial(RecurrentNetwork, width=32)),
        "values in their places": pa.Networks(),
    }
    figure, panels = plt.subplots(1, 2, figsize=(8.5, 4), sharey=True, layout="constrained")
    for panel, (name, chosen) in zip(panels, networks.items(), strict=True):
        guide = pa.train(
            model, eleven_points, budget=budget, networks=chosen, seed=1, progress=False
        )
        generator = torch.Generator().manual_seed(5)
        plan = eleven_points.complete(300, generator)
        truth = guide.structure.draw_individuals(plan, {}, 1, generator)[0]
        cohort, _ = guide.structure.simulate(plan, truth, torch.zeros(300, 0), {}, generator)
        cohort = eleven_points.missing(cohort, generator)
        exact = pa.sample_individuals(model, cohort, {}, guide=guide, num_draws=1000, seed=1)
        torch.manual_seed(0)
        sd = guide.individual_posterior(cohort, {}).sample((1000,)).std(0)
        missing = (~cohort["y"].observed).sum(1)
        panel.scatter(exact.moments()[1][:, 0], sd[:, 0], c=missing, s=12)
        panel.plot([0.005, 0.2], [0.005, 0.2], color="black", lw=1)
        panel.set(title=name, xlabel="exact posterior sd of log10 k1", xscale="log", yscale="log")
    panels[0].set_ylabel("sd by the network (colour: number missing)")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "deletion.png", dpi=130)
    print(
        "Without times the answer is too wide; the corrected draws are exact from either network."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/missing_data"))
    parser.add_argument("--budget", default="20s", help="for each of two trainings")
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget)
