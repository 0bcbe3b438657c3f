"""Models and data of the benchmark of the first answer."""

import pandas
import pyro
import pyro.distributions as dist
import torch

from pyro_amortized import nlme
from pyro_amortized.model import read_structure
from pyro_amortized.population.bootstrapping import simulate_population


def full_omega(cohort):
    """Theophylline with correlated individual parameters."""
    prior = dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 1.0).to_event(1)
    typical = pyro.sample("typical", prior)
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    correlation = pyro.sample("correlation", dist.LKJCholesky(3, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("individual", len(cohort)):
        scale = omega.unsqueeze(-1) * correlation
        phi = pyro.sample("phi", dist.MultivariateNormal(typical, scale_tril=scale))
        ka, cl, v = phi.exp().unbind(-1)
        series = cohort["concentration"]
        prediction = nlme.one_compartment(series.times, cohort.doses, ka=ka, cl=cl, v=v)
        noise = dist.Normal(prediction, sigma[..., None]).mask(series.observed).to_event(1)
        pyro.sample("concentration", noise, obs=series.values)


def combined(cohort):
    """Theophylline with an additive and a proportional residual error."""
    prior = dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 1.0).to_event(1)
    typical = pyro.sample("typical", prior)
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(3)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    share = pyro.sample("share", dist.HalfNormal(0.3))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        ka, cl, v = phi.exp().unbind(-1)
        series = cohort["concentration"]
        prediction = nlme.one_compartment(series.times, cohort.doses, ka=ka, cl=cl, v=v)
        spread = torch.hypot(sigma[..., None], share[..., None] * prediction)
        noise = dist.Normal(prediction, spread).mask(series.observed).to_event(1)
        pyro.sample("concentration", noise, obs=series.values)


def sparse(cohort):
    """Four samples of each of 120 individuals; proportional error."""
    prior = dist.Normal(torch.tensor([0.0, 1.4, 4.2]), 1.0).to_event(1)
    typical = pyro.sample("typical", prior)
    omega = pyro.sample("omega", dist.HalfNormal(torch.full((3,), 0.5)).to_event(1))
    b = pyro.sample("b", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1))
        ka, cl, v = phi.exp().unbind(-1)
        y = cohort["y"]
        prediction = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        noise = nlme.proportional_error(prediction, b[..., None])
        pyro.sample("y", noise.mask(y.observed).to_event(1), obs=y.values)


def interoccasion(cohort):
    """Steady states on two occasions: three effects of the individual, two of each occasion."""
    center = torch.tensor([0.0, 1.4, 4.2])
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
        ka, cl = ((phi[..., j] + kappa[..., j]).exp() for j in range(2))
        v = phi[..., 2].exp().expand(cl.shape)
        # A steady state does not depend on earlier occasions.
        each = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        prediction = each.gather(0, visits.index.unsqueeze(0))[0]
        noise = nlme.proportional_error(prediction, b[..., None])
        pyro.sample("y", noise.mask(y.observed).to_event(1), obs=y.values)


def interoccasion_cohort(num=73, seed=1):
    """Simulated data with seven effects of each of 73 patients."""
    records = []
    for patient in range(1, num + 1):
        for occasion, start in ((1, 0.0), (2, 168.0)):
            dose = {"AMT": 100.0, "II": 12.0, "SS": 1, "EVID": 1, "DV": float("nan")}
            records.append({"ID": patient, "TIME": start, "OCC": occasion, **dose})
            for hours in (0.5, 1.0, 2.0, 4.0, 8.0, 11.5):
                value = {"AMT": 0.0, "II": 0.0, "SS": 0, "EVID": 0, "DV": 1.0}
                records.append({"ID": patient, "TIME": start + hours, "OCC": occasion, **value})
    design = nlme.read_table(pandas.DataFrame(records), series="y")
    population = {
        "typical": torch.tensor([0.2, 1.4, 4.3]),
        "omega": torch.tensor([0.4, 0.3, 0.2]),
        "between": torch.tensor([0.3, 0.2]),
        "b": torch.tensor(0.15),
    }
    return simulate_population(read_structure(interoccasion, design), design, population, seed)
