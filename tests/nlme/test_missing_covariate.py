"""A covariate that some individuals lack, as a site of the model, against the closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_amortized as pa
from pyro_amortized import nlme
from pyro_amortized.errors import ModelError
from pyro_amortized.numerics.maximization import maximize

NUM, TIMES = 50, 4


def program(cohort):
    """y = a + beta x + noise, with a normal covariate x."""
    a, beta = (pyro.sample(n, dist.Normal(0.0, 2.0)) for n in ("a", "beta"))
    omega, sigma = (pyro.sample(n, dist.HalfNormal(1.0)) for n in ("omega", "sigma"))
    mean, sd = pyro.sample("mean", dist.Normal(0.0, 2.0)), pyro.sample("sd", dist.HalfNormal(1.0))
    record, y = cohort["x"], cohort["y"]
    with pyro.plate("individual", len(cohort)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        x = nlme.completed(record, mean + sd * z)
        law = dist.Normal(mean[..., None], sd[..., None]).expand(record.values.shape)
        pyro.sample("x", law.mask(record.observed).to_event(1), obs=record.values)
        phi = pyro.sample("phi", dist.Normal(a, omega))
        center = (phi + beta * x)[..., None] + 0 * y.times
        law = dist.Normal(center, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", law, obs=y.values)


def simulated():
    generator = torch.Generator().manual_seed(4)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = 0.5 + 0.8 * normal(NUM)
    y = (1.0 + 0.7 * x + 0.5 * normal(NUM))[:, None] + 0.4 * normal(NUM, TIMES)
    missing = torch.rand(NUM, generator=generator) < 0.4
    times = torch.arange(TIMES).double().expand(NUM, -1).clone()
    record = pa.Series(
        torch.zeros(NUM, 1).double(), x.masked_fill(missing, torch.nan).unsqueeze(-1)
    )
    return pa.Cohort({"y": pa.Series(times, y), "x": record}), missing


def exact(cohort, missing, vector):
    """Log likelihood at (a, beta, mean, log omega, log sigma, log sd)."""
    a, beta, mean = vector[:3]
    omega, sigma, sd = vector[3:].exp()
    x, y = cohort["x"].values[:, 0], cohort["y"].values
    center = torch.where(missing, a + beta * mean, a + beta * x)
    between = torch.where(missing, omega**2 + (beta * sd) ** 2, omega**2)
    covariance = between[:, None, None] + sigma**2 * torch.eye(TIMES).double()
    law = dist.MultivariateNormal(center[:, None].expand(-1, TIMES), covariance)
    known = dist.Normal(mean, sd).log_prob(x)
    return law.log_prob(y).sum() + known[~missing].sum()


def test_a_missing_covariate_is_integrated_out():
    cohort, missing = simulated()
    fit = pa.fit_population(program, cohort, seed=1, progress=False)
    start = torch.tensor([1.0, 0.7, 0.5, math.log(0.5), math.log(0.4), math.log(0.8)]).double()
    best = maximize(lambda v: exact(cohort, missing, v), start)
    curvature = torch.autograd.functional.hessian(lambda v: exact(cohort, missing, v), best.vector)
    errors = torch.linalg.inv(-curvature).diagonal().sqrt()
    names = list(fit.structure.population)
    order = [names.index(n) for n in ("a", "beta", "mean", "omega", "sigma", "sd")]
    tolerance = 4 * fit.marginal.minus2ll_mc_error + 0.1  # see the end of the rounds of a fit
    assert abs(fit.minus2ll + 2 * best.value) < tolerance
    assert ((fit.vector[order] - best.vector).abs() < 0.1 * errors).all()
    ratio = fit.covariance.diagonal().sqrt()[order] / errors
    assert ((ratio - 1).abs() < 0.05).all()


def test_a_covariate_with_several_times_is_refused():
    record = pa.Series(torch.zeros(2, 2), torch.ones(2, 2))
    with pytest.raises(ModelError, match="one value per individual"):
        nlme.completed(record, torch.zeros(2))
