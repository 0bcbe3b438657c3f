"""Fit, print, draw: the function that the examples of this folder share."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pyro_amortized as pa
from pyro_amortized.diagnostics import plots


def run(name, model, cohort, series=("concentration",)):
    """Fit a model to its cohort; figures go to ``output/``.

    So few individuals need no guide. With ``--budget 60s`` one is trained first, which then serves
    other individuals at once.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--budget", help="train a guide first, for instance 60s")
    arguments = parser.parse_args()
    guide = None
    if arguments.budget:
        guide = pa.train(model, cohort, budget=arguments.budget, seed=1)
    fit = pa.fit_population(model, cohort, guide=guide, seed=1)
    print(fit.summary())
    arguments.output.mkdir(parents=True, exist_ok=True)
    for observed in series:
        path = arguments.output / f"{name}_{observed}.png"
        plots.individual_fits(fit, series=observed).savefig(path, dpi=110)
        print(f"individual fits: {path}")
    return fit
