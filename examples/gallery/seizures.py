"""Epileptic seizures: a Poisson model with random intercepts, without a differential equation.

The data are counts of 59 patients over four periods (Thall and Vail 1990). The model is a
regression on baseline, treatment and age, with an intercept for every patient. Counts have no
residual variance that would have to be estimated.
"""

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

import other_models

import pyro_amortized as pa


def main(output, budget):
    problem = other_models.PROBLEMS["seizures"]()
    guide = pa.train(problem.program, problem.cohort, budget=budget, seed=1)
    chain = pa.AmortizedMCMC(problem.program, guide=guide, num_samples=1000, seed=1)
    chain.run(problem.cohort)
    chain.summary()
    samples = chain.get_samples()
    effect = samples["u"].flatten(1)
    order = effect.mean(0).argsort()
    low, high = effect.quantile(effect.new_tensor([0.05, 0.95]), dim=0)[:, order]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    place = range(len(order))
    left.vlines(place, low, high, color="#c8553d", lw=1.5)
    left.plot(place, effect.mean(0)[order], "o", ms=3, color="#1f2a44")
    left.set(xlabel="patient, by rank", ylabel="random intercept", title="means and 90 % intervals")
    right.hist(samples["tau"].flatten(), bins=30, color="#8a8f98")
    right.set(xlabel="sd of the intercepts", yticks=[], title="population")
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "seizures.png", dpi=110)
    print("A hierarchical regression needs only its Pyro model and a table.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--budget", default="30s", help="time to train")
    arguments = parser.parse_args()
    main(arguments.output, arguments.budget)
