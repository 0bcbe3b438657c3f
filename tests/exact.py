r"""A linear Gaussian mixed model with missing entries, whose every quantity is closed-form.

.. math:: y_i = X_i \phi_i + \epsilon_i, \quad \phi_i \sim N(\mu, \mathrm{diag}(\omega^2)), \quad
          \epsilon_{ij} \sim N(0, \sigma^2) \;\Rightarrow\;
          y_i \sim N(X_i \mu,\; X_i \Omega X_i^\top + \sigma^2 I)

over the recorded rows, X_i = (1, t_i). Comparisons with exact results use it.
"""

import json
import math
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.numerics.maximization import maximize

TRUTH = {
    "mean": torch.tensor([1.0, 0.5], dtype=torch.float64),
    "omega": torch.tensor([0.6, 0.3], dtype=torch.float64),
    "sigma": torch.tensor(0.4, dtype=torch.float64),
}


def linear_program(cohort):
    mean = pyro.sample("mean", dist.Normal(torch.tensor([0.5, 0.5]), 1.0).to_event(1))
    omega = pyro.sample("omega", dist.HalfNormal(torch.ones(2)).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(mean, omega).to_event(1))
        intercept, slope = phi.unbind(-1)
        y = cohort["y"]
        prediction = intercept[..., None] + slope[..., None] * y.times
        distribution = dist.Normal(prediction, sigma[..., None]).mask(y.observed).to_event(1)
        pyro.sample("y", distribution, obs=y.values)


def linear_cohort(num=40, width=8, missing=0.3, seed=0, truth=TRUTH):
    """``num`` individuals of 2 to ``width`` scheduled times, a share of the values missing."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    times = torch.rand(num, width, generator=generator, dtype=torch.float64).mul(4).sort(1).values
    phi = truth["mean"] + truth["omega"] * normal(num, 2)
    values = phi[:, :1] + phi[:, 1:] * times + truth["sigma"] * normal(num, width)
    scheduled = torch.randint(2, width + 1, (num, 1), generator=generator)
    observed = torch.arange(width) < scheduled
    observed &= torch.rand(num, width, generator=generator) >= missing
    return Cohort({"y": Series(times, values, observed)})


def _rows(cohort, i):
    y = cohort["y"]
    seen = y.observed[i]
    return torch.stack([torch.ones_like(y.times[i][seen]), y.times[i][seen]], -1), y.values[i][seen]


def padded(cohort):
    """What is recorded (0 or 1), the rows (1, t) of the design, the values; zeros elsewhere."""
    y = cohort["y"]
    seen = y.observed.double()
    times, values = (torch.where(y.observed, x, 0.0).double() for x in (y.times, y.values))
    return seen, torch.stack([seen, times], -1), values


def exact_log_marginal(cohort, population):
    """log p(y_i | Psi), shape (individual,), differentiable.

    All individuals at once: a value that is not recorded counts as an independent standard normal
    variable of value zero, and its density is taken off again.
    """
    seen, design, values = padded(cohort)
    covariance = (design * population["omega"] ** 2) @ design.transpose(-1, -2)
    diagonal = seen * population["sigma"] ** 2 + (1 - seen)
    covariance = covariance + torch.diag_embed(diagonal)
    distribution = torch.distributions.MultivariateNormal(design @ population["mean"], covariance)
    return distribution.log_prob(values) + 0.5 * math.log(2 * math.pi) * (1 - seen).sum(-1)


def exact_posterior(cohort, population):
    """Mean (individual, 2) and covariance (individual, 2, 2) of phi_i given y_i and Psi."""
    _, design, values = padded(cohort)
    precision = torch.diag(population["omega"] ** -2)
    gram = design.transpose(-1, -2) @ design
    covariance = torch.linalg.inv(precision + gram / population["sigma"] ** 2)
    slope = (design.transpose(-1, -2) @ values.unsqueeze(-1)).squeeze(-1)
    score = precision @ population["mean"] + slope / population["sigma"] ** 2
    return (covariance @ score.unsqueeze(-1)).squeeze(-1), covariance


def unpack(vector):
    return {"mean": vector[:2], "omega": vector[2:4].exp(), "sigma": vector[4].exp()}


def exact_fit(cohort, truth=TRUTH):
    """Maximum likelihood: unconstrained (mean, log omega, log sigma), value, covariance."""
    start = torch.cat([truth["mean"], truth["omega"].log(), truth["sigma"].log()[None]])

    def objective(vector):
        return exact_log_marginal(cohort, unpack(vector)).sum()

    optimum = maximize(objective, start)
    hessian = torch.autograd.functional.hessian(objective, optimum.vector)
    return optimum.vector, optimum.value, torch.linalg.inv(-hessian)


# Theophylline: the marginal likelihood by quadrature, at two given points and at its maximum.

_FILE = Path(__file__).parent.parent / "benchmarks" / "exact" / "theophylline.json"
THEOPHYLLINE = json.loads(_FILE.read_text("utf-8"))


def theophylline_population(point):
    """Values of the population sites of the quickstart at a point of ``THEOPHYLLINE``."""
    p = THEOPHYLLINE[point]["params"]
    omega2 = torch.tensor([p["omega2_ka"], p["omega2_cl"], p["omega2_v"]], dtype=torch.float64)
    typical = torch.tensor([p["lka"], p["lcl"], p["lv"]], dtype=torch.float64)
    return {"typical": typical, "omega": omega2.sqrt(), "sigma": torch.tensor(p["add_sd"]).double()}
