"""Warfarin: from a fit to dosing regimens, with the uncertainty of the parameters.

The model is fitted to the concentrations of 32 individuals. New individuals then get a daily dose
with and without a loading dose, and a regimen that a rule adapts to what was measured. The bands
contain the uncertainty of the population parameters, the variability of the individuals and, in the
light part, the residual error.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "pharmacometrics"))

import warfarin

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots


def rule(measured):
    """The next dose in proportion to what is missing to 8 mg/L, within a factor of two."""
    factor = (8.0 / measured.last.clamp(min=0.1)).clamp(0.5, 2.0)
    return measured.last_amount * factor


def main(output, num_individuals, num_draws):
    fit = pa.fit_population(warfarin.model, warfarin.cohort, seed=1)
    daily = nlme.regimen(20, 24, 10)
    regimens = {
        "20 mg a day": daily,
        "loading dose of 80 mg": nlme.regimen(20, 24, 10, loading=80),
        "adapted to the samples": nlme.adaptive(daily, rule, samples=[72, 144]),
    }
    result = pa.simulate(
        fit,
        regimens,
        num_individuals=num_individuals,
        num_draws=num_draws,
        exposure=pa.Exposure(above=5.0),  # mg/L, over the last interval
        seed=1,
    )
    print(result)
    print("\nshare of the individuals with a last trough of 5 to 12 mg/L:")
    print(result.probability("trough", 5.0, 12.0).to_string(index=False))
    output.mkdir(parents=True, exist_ok=True)
    plots.simulated_bands(result, metric="trough").savefig(output / "regimens.png", dpi=110)

    one = warfarin.cohort[[0]]
    seen = pa.simulate(fit, daily, conditional_on=one, num_draws=num_draws, seed=1)
    low, high = seen.exposures["auc"]["20 every 24, 10 doses"].quantile(
        torch.tensor([0.05, 0.95]).double()
    )
    print(f"\nAUC of individual {one.ids[0]} under the daily dose: {low:.0f} to {high:.0f} mg h/L")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--individuals", type=int, default=500)
    parser.add_argument("--draws", type=int, default=100, help="populations")
    arguments = parser.parse_args()
    main(arguments.output, arguments.individuals, arguments.draws)
