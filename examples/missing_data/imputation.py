"""Two kinds of imputation for a network that was trained on complete data only.

The reversible reaction of conversion.py is observed at three times, and one or two values are
missing. Linear interpolation gives posterior means that are biased and intervals that are too
narrow. The average over draws of the missing values given the recorded ones gives the posterior. A
network whose input has an indicator of what is missing gives the same posterior at once. The script
compares posterior means of 300 data sets with the exact ones (corrected draws), in posterior
standard deviations.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from conversion import complete, interpolated, model, one_or_two, three_points

import pyro_amortized as pa
from pyro_amortized.encode import Indicator


def imputed_properly(guide, cohort, draws, seed=0):
    """Complete-data posterior draws, averaged over the missing values given the recorded ones."""
    generator = torch.Generator().manual_seed(seed)
    y, posterior_draws = cohort["y"], []
    for values in guide.structure.predict_draws(cohort, draws, {}, generator)["y"]:
        completed = pa.Cohort({"y": pa.Series(y.times, torch.where(y.observed, y.values, values))})
        posterior_draws.append(guide.individual_posterior(completed, {}).sample((5,)))
    return torch.cat(posterior_draws)


def main(output, budget):
    options = {"budget": budget, "seed": 1, "progress": False}
    with_indicator = pa.train(model, three_points, networks=pa.Networks(Indicator()), **options)
    on_complete = pa.train(model, complete, **options)
    generator = torch.Generator().manual_seed(5)
    plan = one_or_two.complete(300, generator)
    truth = with_indicator.structure.draw_individuals(plan, {}, 1, generator)[0]
    cohort, _ = with_indicator.structure.simulate(plan, truth, torch.zeros(300, 0), {}, generator)
    cohort = one_or_two.missing(cohort, generator)
    exact = pa.sample_individuals(
        with_indicator.model, cohort, {}, guide=with_indicator, num_draws=2000, seed=1
    )
    mean, sd, _, _ = exact.moments()
    torch.manual_seed(0)
    by_interpolation = on_complete.individual_posterior(interpolated(cohort), {})
    by_indicator = with_indicator.individual_posterior(cohort, {})
    draws_by_method = {
        "linear interpolation": by_interpolation.sample((1000,)),
        "average over p(missing | recorded)": imputed_properly(
            on_complete, cohort, exact.resampled(200, 2)
        ),
        "indicator of missing values": by_indicator.sample((1000,)),
    }
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.4), sharey=True, layout="constrained")
    for panel, (name, draws) in zip(panels, draws_by_method.items(), strict=True):
        off = (draws.mean(0) - mean) / sd
        panel.hist(off.clamp(-3, 3).flatten(), bins=61, range=(-3, 3))
        rms = float(off.pow(2).mean().sqrt())
        panel.set(title=name, xlabel=f"(mean - exact) / sd, rms {rms:.2f}")
        print(f"{name:34} rms error of the posterior means {rms:.3f} sd")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "imputation.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/missing_data"))
    parser.add_argument("--budget", default="20s", help="for each of two trainings")
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget)
