"""Theophylline: from a Pyro model to a population fit, compared with the exact maximum likelihood.

The script fits the population, then trains a guide and asks it about simulated individuals with
missing values. It writes figures (PNG), the fit for ArviZ
(NetCDF) and the trained guide to ``output/``.
"""

import argparse
import time
from pathlib import Path

import torch
from quickstart import cohort, model

import pyro_amortized as pa
from pyro_amortized.diagnostics import calibrate, plots, to_arviz

# Maximum of the marginal likelihood by quadrature: estimates and standard errors of the means of
# log ka, log CL, log V, the standard deviations of their random effects, and the residual error.
EXACT_MINUS2LL = 360.7007
EXACT = {
    "typical[0]": (0.45928, 0.19292),
    "typical[1]": (1.01167, 0.08426),
    "typical[2]": (3.45385, 0.04625),
    "omega[0]": (0.63637, 0.15084),
    "omega[1]": (0.26517, 0.06637),
    "omega[2]": (0.13596, 0.03997),
    "sigma": (0.69592, 0.04974),
}


def compare(fit):
    """Print the estimates beside the exact ones."""
    print(f"{'':12}{'estimate':>10}{'exact':>10}{'SE':>10}{'exact SE':>10}")
    for row in fit.summary().parameters:
        value, error = EXACT[row.name]
        print(
            f"{row.name:12}{row.estimate:10.4f}{value:10.4f}{row.standard_error:10.4f}{error:10.4f}"
        )
    print(f"{'-2LL':12}{fit.minus2ll:10.3f}{EXACT_MINUS2LL:10.3f}\n")


def main(output, budget, num_calibration):
    begin = time.perf_counter()
    fit = pa.fit_population(model, cohort, seed=1)
    print(fit.summary(), "\n")
    fitted = time.perf_counter()
    print(f"fitted in {fitted - begin:.1f} s; beside the exact maximum likelihood:\n")
    compare(fit)

    guide = pa.train(model, cohort, budget=budget, seed=1)
    seconds = time.perf_counter() - fitted
    print(f"trained in {seconds:.0f} s on {guide.history.num_simulations:,} simulations\n")

    design = pa.Resample(cohort, pa.RandomMissing(0.3, 0.3))
    calibration = calibrate(guide, design, num_individuals=num_calibration, seed=5)
    print("calibration with 30 % of the values missing, p-values of uniform ranks:")
    print("  corrected", {name: round(p, 3) for name, p in calibration.p_values().items()})
    print("  raw guide", {name: round(p, 3) for name, p in calibration.p_values(raw=True).items()})

    output.mkdir(parents=True, exist_ok=True)
    plots.individual_fits(fit).savefig(output / "individual_fits.png", dpi=150)
    plots.training_curve(guide.history).savefig(output / "training_curve.png", dpi=150)
    plots.rank_histogram(calibration).savefig(output / "ranks.png", dpi=150)
    to_arviz(fit, seed=1).to_netcdf(str(output / "theophylline.nc"))
    guide.save(output / "guide")
    print(f"\nfigures, ArviZ data (theophylline.nc) and the guide are in {output.resolve()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--budget", default="100s", help="time to train")
    parser.add_argument("--calibration", type=int, default=200, help="simulated individuals")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    main(arguments.output, arguments.budget, arguments.calibration)
