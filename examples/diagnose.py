"""Diagnostics of a fit: the battery of checks, figures and a report, for one of three data sets.

The script trains a guide, fits the population and prints the verdict. It writes figures (PNG) and
a self-contained report (HTML) to ``output/``.
"""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "pharmacometrics")]

import quickstart
import theophylline_censored
import warfarin

import pyro_amortized as pa
from pyro_amortized.diagnostics import diagnose, plots, report

PROBLEMS = {
    "theophylline": (quickstart.model, quickstart.cohort),
    "warfarin": (warfarin.model, warfarin.cohort),
    "censored": (theophylline_censored.model, theophylline_censored.cohort),
}


def main(name, budget, output, num_individuals):
    model, cohort = PROBLEMS[name]
    guide = pa.train(model, cohort, budget=budget, seed=1, progress=False)
    fit = pa.fit_population(model, cohort, guide=guide, seed=1)
    output.mkdir(parents=True, exist_ok=True)
    # (checks begin)
    diagnosis = diagnose(fit, num_individuals=num_individuals, seed=1)
    print(diagnosis)  # a verdict in words; diagnosis.table() has every check
    report(fit, output / f"{name}.html", title=name.capitalize(), diagnosis=diagnosis)
    figures = {
        "goodness": plots.goodness_of_fit(fit),
        "predictive": plots.visual_predictive_check(fit, seed=1),
        "effects": plots.random_effects(fit),
        "battery": plots.battery(diagnosis),
    }
    # (checks end)
    for label, figure in figures.items():
        figure.savefig(output / f"{name}_{label}.png", dpi=100)
    print(f"figures and {name}.html are in {output.resolve()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=list(PROBLEMS), nargs="?", default="theophylline")
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--individuals", type=int, default=300, help="simulated individuals")
    arguments = parser.parse_args()
    main(arguments.data, arguments.budget, arguments.output, arguments.individuals)
