"""Two occasions a day apart: what the first one leaves is carried over into the second.

Clearance and absorption vary between patients and between the occasions of a patient. The closed
form changes its parameters between occasions as an ODE does, in a small part of the time.
"""

import argparse
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.diagnostics import plots

TRUTH = {
    "typical": torch.tensor([0.2, 1.1, 3.6]),
    "omega": torch.tensor([0.4, 0.3, 0.2]),
    "between": torch.tensor([0.3, 0.25]),
    "b": torch.tensor(0.1),
}


# (model begins)
def model(cohort):
    center = torch.tensor([0.0, 1.0, 3.5])
    typical = pyro.sample("typical", dist.Normal(center, 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.full((3,), 0.5)).to_event(1))
    between = pyro.sample("between", dist.HalfNormal(torch.full((2,), 0.5)).to_event(1))
    b = pyro.sample("b", dist.HalfNormal(0.5))
    y = cohort["y"]
    visits = nlme.occasions(cohort.time_varying["OCC"], y.times)
    with pyro.plate("individual", len(cohort), dim=-1):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        with pyro.plate("occasion", visits.number, dim=-2):
            kappa = pyro.sample("kappa", dist.Normal(0.0, between).to_event(1))
        ka, cl = ((phi[..., j] + kappa[..., j]).exp() for j in range(2))  # (occasion, individual)
        v = phi[..., 2].exp()
        prediction = nlme.one_compartment(
            y.times, cohort.doses, ka=ka, cl=cl, v=v, occasions=visits
        )
        error = nlme.proportional_error(prediction, b[..., None])
        pyro.sample("y", error.mask(y.observed).to_event(1), obs=y.values)


# (model ends)


# (ode begins)
def rates(t, x, p):
    absorbed = p["ka"] * x[..., 0]
    return torch.stack([-absorbed, absorbed - p["cl"] / p["v"] * x[..., 1]], -1)


def by_ode(cohort, visits, ka, cl, v):
    start = torch.zeros(len(cohort), 2, dtype=torch.float64)
    x = nlme.solve(
        rates,
        start,
        cohort["y"].times,
        {"v": v},
        doses=cohort.doses,
        piecewise=visits.piecewise({"ka": ka, "cl": cl}),
    )
    return x[..., 1] / v[..., None]


# (ode ends)


def simulated(num=40, seed=1):
    hours = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 12.0]).double()
    times = torch.cat([hours, 24 + hours]).expand(num, -1).clone()
    begins = torch.tensor([0.0, 24.0]).double().expand(num, -1).clone()
    occasion = pa.Series(begins, torch.tensor([1.0, 2.0]).double().expand(num, -1).clone())
    doses = pa.Doses(begins, torch.full((num, 2), 100.0).double())
    design = pa.Cohort(
        {"y": pa.Series(times, torch.ones_like(times))}, doses, time_varying={"OCC": occasion}
    )
    truth = {n: x.double() for n, x in TRUTH.items()}
    return pa.simulate_population(pa.read_structure(model, design), design, truth, seed=seed)


def main(output, num):
    cohort = simulated(num)
    visits = nlme.occasions(cohort.time_varying["OCC"], cohort["y"].times)
    ka, cl = torch.ones(2, num).double(), torch.linspace(1, 8, 2 * num).double().reshape(2, num)
    v = torch.full((num,), 30.0).double()
    closed = nlme.one_compartment(
        cohort["y"].times, cohort.doses, ka=ka, cl=cl, v=v, occasions=visits
    )
    difference = (closed - by_ode(cohort, visits, ka, cl, v)).abs().max()
    print(f"Closed form and ODE differ by {float(difference):.1g}.")
    fit = pa.fit_population(model, cohort, seed=1)
    print(fit.summary())
    output.mkdir(parents=True, exist_ok=True)
    figure = plots.individual_fits(fit, max_individuals=8)
    figure.savefig(output / "occasions.png", dpi=110)
    print("Every occasion has its own clearance and absorption.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("output"))
    parser.add_argument("--individuals", type=int, default=40)
    arguments = parser.parse_args()
    main(arguments.output, arguments.individuals)
