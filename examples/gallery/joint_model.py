"""A tumour marker and death in one model: visits every three weeks for two years.

The design is that of a published simulation (Desmée et al. 2015, prostate-specific antigen and
survival): the marker falls and rises again, its current value acts on the hazard of death, and
nothing is measured after death. The values of the parameters are our own.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import event_residuals, plots
from pyro_amortized.diagnostics.events.event_residuals import event_checks

TRUTH = {
    "typical": torch.tensor([4.0, -1.2, -0.4]),
    "omega": torch.tensor([0.6, 0.5, 0.5]),
    "sigma": torch.tensor(0.35),
    "scale": torch.tensor(2.2),
    "shape": torch.tensor(1.4),
    "link": torch.tensor(0.35),
}


# (model begins)
def log_marker(times, phi):
    """Log of the marker: a fall of rate k, and growth of rate g (both per year)."""
    start, k, g = phi[..., 0:1], phi[..., 1:2].exp(), phi[..., 2:3].exp()
    return start + torch.logaddexp(-4 * k * times, g * times - 2.5)


def model(cohort):
    center = torch.tensor([4.0, -1.0, -0.5])
    typical = pyro.sample("typical", dist.Normal(center, 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    scale = pyro.sample("scale", dist.Normal(2.0, 1.0))  # log of years
    shape = pyro.sample("shape", dist.LogNormal(0.3, 0.5))
    link = pyro.sample("link", dist.Normal(0.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        marker, death = cohort["marker"], cohort["marker_dropout"]
        error = dist.Normal(log_marker(marker.times, phi), sigma[..., None])
        pyro.sample("marker", error.mask(marker.observed).to_event(1), obs=marker.values)
        weibull = nlme.weibull_hazard(scale.exp(), shape)
        hazard = nlme.integrated_hazard(
            lambda t: weibull(t)[0] + link[..., None] * log_marker(t, phi), num_nodes=16
        )
        pyro.sample("marker_dropout", nlme.EventTimes(hazard, death), obs=death.values)


# (model ends)


def simulated(num=100, seed=1):
    weeks = torch.arange(0.0, 104.0, 3.0).double() / 52
    times = weeks.expand(num, -1).clone()
    end = torch.full((num,), 2.0).double()
    series = {
        "marker": pa.Series(times, torch.ones_like(times)),
        # Nothing is measured after this event: its name says so.
        "marker_dropout": nlme.event_series(end, torch.zeros(num)),
    }
    design = pa.Cohort(series)
    truth = {n: x.double() for n, x in TRUTH.items()}
    return pa.simulate_population(pa.read_structure(model, design), design, truth, seed=seed)


def main(output, num):
    cohort = simulated(num)
    died = float(cohort["marker_dropout"].values[..., 1].mean())
    print(f"{died:.0%} of the individuals have died within two years.")
    fit = pa.fit_population(model, cohort, seed=1)
    print(fit.summary())
    for check in event_checks(event_residuals(fit), fit.cohort):
        print(f"{check.name}: {check.words}")
    output.mkdir(parents=True, exist_ok=True)
    plots.visual_predictive_check(fit, series="marker").savefig(output / "joint_model_marker.png")
    figure = plots.event_curves(fit, num_simulations=300)
    figure.savefig(output / "joint_model.png", dpi=110)
    print("The marker and the time of death are described by one model.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--individuals", type=int, default=100)
    arguments = parser.parse_args()
    main(arguments.output, arguments.individuals)
