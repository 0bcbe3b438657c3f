"""One small growth curve, written in every style that a user may come with."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

from pyro_amortized import Cohort, Series, nlme


def growth_cohort(num=6, seed=0, missing=True):
    """Exponential approach to a plateau at individual times, some values not recorded."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(num, 5, generator=generator, dtype=torch.float64).mul(4).sort(1).values
    values = 2 * (1 - torch.exp(-times)) + 0.1 * torch.randn(num, 5, generator=generator).double()
    observed = torch.rand(num, 5, generator=generator) > (0.3 if missing else -1)
    observed[:, 0] = True
    weight = 50 + 40 * torch.rand(num, generator=generator, dtype=torch.float64)
    return Cohort({"y": Series(times, values, observed)}, covariates={"weight": weight})


def curve(times, plateau, rate):
    return plateau[..., None] * (1 - torch.exp(-rate[..., None] * times))


def event_time(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        plateau, rate = phi.exp().unbind(-1)
        y = cohort["y"]
        distribution = dist.Normal(curve(y.times, plateau, rate), sigma[..., None])
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def bare_sigma(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, 0.5).to_event(1))
        plateau, rate = phi.exp().unbind(-1)
        y = cohort["y"]
        distribution = dist.Normal(curve(y.times, plateau, rate), sigma)
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def plate_time(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    y = cohort["y"]
    with pyro.plate("individual", len(cohort), dim=-2):
        phi = pyro.sample("phi", dist.Normal(mean, 0.5).to_event(1))  # (individual, 1, 2)
        plateau, rate = phi.exp().unbind(-1)
        with pyro.plate("time", y.times.shape[1], dim=-1):
            prediction = plateau * (1 - torch.exp(-rate * y.times))
            with pyro.poutine.mask(mask=y.observed):
                pyro.sample("y", dist.Normal(prediction, sigma), obs=y.values)


def time_outside(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    y = cohort["y"]
    individuals = pyro.plate("individual", len(cohort), dim=-1)
    with individuals:
        phi = pyro.sample("phi", dist.Normal(mean, 0.5).to_event(1))
    plateau, rate = phi.exp().unbind(-1)
    with pyro.plate("time", y.times.shape[1], dim=-2), individuals:
        distribution = dist.Normal(curve(y.times, plateau, rate).T, sigma)
        pyro.sample("y", distribution.mask(y.observed.T), obs=y.values.T)


def obs_mask(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    y = cohort["y"]
    with pyro.plate("individual", len(cohort), dim=-2):
        phi = pyro.sample("phi", dist.Normal(mean, 0.5).to_event(1))
        plateau, rate = phi.exp().unbind(-1)
        with pyro.plate("time", y.times.shape[1], dim=-1):
            distribution = dist.Normal(plateau * (1 - torch.exp(-rate * y.times)), sigma)
            pyro.sample("y", distribution, obs=y.values, obs_mask=y.observed)


def parameters(cohort):
    mean = pyro.param("mean", torch.zeros(2))
    omega = pyro.param("omega", torch.ones(2), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(0.3), constraint=constraints.positive)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        plateau, rate = phi.exp().unbind(-1)
        y = cohort["y"]
        distribution = dist.Normal(curve(y.times, plateau, rate), sigma[..., None])
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def several_supports(cohort):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    spread = pyro.sample("spread", dist.LogNormal(-1.0, 0.5))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        plateau = pyro.sample("plateau", dist.LogNormal(mean, spread))
        rate = pyro.sample("rate", dist.Gamma(4.0, 3.0))
        share = pyro.sample("share", dist.Beta(2.0, 2.0))
        mix = pyro.sample("mix", dist.Dirichlet(torch.ones(3)))
        late = pyro.sample("late", dist.Uniform(0.0, share))
        y = cohort["y"]
        prediction = curve(y.times, plateau * (share + mix[..., 0] + late), rate)
        distribution = dist.Normal(prediction, sigma[..., None])
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def non_centred(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        eta = pyro.sample("eta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        plateau, rate = (mean + omega * eta).exp().unbind(-1)
        y = cohort["y"]
        distribution = dist.Normal(curve(y.times, plateau, rate), sigma[..., None])
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def indexed(cohort):
    """Indexing from the left: no layout fits, simulation must loop."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        eta = pyro.sample("eta", dist.Normal(torch.zeros(2), 0.5).to_event(1))
        plateau, rate = torch.exp(mean[0] + eta[:, 0]), torch.exp(mean[1] + eta[:, 1])
        y = cohort["y"]
        distribution = dist.Normal(curve(y.times, plateau, rate), sigma)
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def correlated(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    factor = pyro.sample("factor", dist.LKJCholesky(2, torch.tensor(2.0)))
    slope = pyro.sample("slope", dist.Normal(0.0, 0.5))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        shift = slope[..., None] * torch.log(cohort.covariates["weight"] / 70)[:, None]
        location = mean + torch.cat([shift, torch.zeros_like(shift)], -1)
        phi = pyro.sample(
            "phi", dist.MultivariateNormal(location, scale_tril=omega[..., None] * factor)
        )
        plateau, rate = phi.exp().unbind(-1)
        y = cohort["y"]
        distribution = dist.Normal(curve(y.times, plateau, rate), sigma[..., None])
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def ode(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 0.5).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, 0.3).to_event(1))
        plateau, rate = phi.exp().unbind(-1)
        y = cohort["y"]

        def approach(t, x, p):
            return p["rate"][:, None] * (p["plateau"][:, None] - x)

        states = nlme.solve(
            approach, torch.zeros(1), y.times, {"plateau": plateau, "rate": rate}, rtol=1e-5
        )
        distribution = dist.Normal(states[..., 0], sigma[..., None])
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


def deterministic_and_scalar(cohort):
    """One scalar latent site, a deterministic site, the residual error sampled last."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    individuals = pyro.plate("individual", len(cohort))
    with individuals:
        rate = pyro.sample("rate", dist.LogNormal(mean, 0.4))
        pyro.deterministic("half_life", 0.693 / rate)
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with individuals:
        y = cohort["y"]
        distribution = dist.Normal(
            curve(y.times, torch.full_like(rate, 2.0), rate), sigma[..., None]
        )
        pyro.sample("y", distribution.mask(y.observed).to_event(1), obs=y.values)


STYLES = {
    f.__name__: f
    for f in (
        event_time,
        bare_sigma,
        plate_time,
        time_outside,
        obs_mask,
        parameters,
        several_supports,
        non_centred,
        indexed,
        correlated,
        ode,
        deterministic_and_scalar,
    )
}
