r"""Problems of the training benchmark: program, design, exact posterior.

Every problem is a Pyro program of one plate, whose individual parameters have the stated prior. The
exact posterior of a data set comes from a grid (conversion reaction) or from importance sampling
with the trained guide as proposal and many draws (its effective sample size is printed).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch

import pyro_amortized as pa
from pyro_amortized import Cohort, Doses, Series, nlme
from pyro_amortized.runtime.random_numbers import make_generator
from pyro_amortized.guide.training_distributions import TrainingDistribution


@dataclass(frozen=True)
class Problem:
    """A program with its prior in unconstrained coordinates, times and number missing."""

    name: str
    model: Callable
    loc: torch.Tensor
    scale: torch.Tensor
    times: torch.Tensor
    max_missing: int
    num_doses: int = 0

    @property
    def training(self):
        return TrainingDistribution.normal(self.loc, self.scale.diag())

    @property
    def design(self):
        return Scheduled(self)

    def draw(self, num, seed):
        """Parameters (unconstrained) and a cohort of ``num`` data sets."""
        generator = make_generator(seed)
        structure = pa.read_structure(self.model, self.design(64, generator))
        latent = self.training.individual.normal.draw(num, generator)
        plan = self.design.complete(num, generator)
        cohort, failed = structure.simulate(
            plan, latent, torch.zeros(num, 0), structure.initial_population(), generator
        )
        kept = (~failed).nonzero()[:, 0]
        return latent[kept], self.design.missing(cohort[kept], generator)

    def features(self, cohort):
        """What the peers read: values (0 where missing), indicators, amounts of the doses."""
        y = cohort["y"]
        parts = [torch.where(y.observed, y.values, 0.0), y.observed.to(y.values.dtype)]
        if cohort.doses is not None:
            parts.append(cohort.doses.amounts)
        return torch.cat(parts, -1)


@dataclass(frozen=True)
class Scheduled:
    """A common time grid; a uniform number of values missing at random positions."""

    problem: Problem

    def __call__(self, num, generator):
        return self.missing(self.complete(num, generator), generator)

    def complete(self, num, generator):
        times = self.problem.times.expand(num, -1)
        doses = None
        if self.problem.num_doses:
            n = self.problem.num_doses
            amounts = 100 + 400 * torch.rand(num, n, generator=generator, dtype=torch.float64)
            doses = Doses(12.0 * torch.arange(n, dtype=torch.float64).expand(num, -1), amounts)
        return Cohort({"y": Series(times, torch.ones_like(times))}, doses)

    def missing(self, cohort, generator):
        num, width = cohort["y"].values.shape
        count = torch.randint(0, self.problem.max_missing + 1, (num, 1), generator=generator)
        rank = torch.rand(num, width, generator=generator).argsort(1).argsort(1)
        return cohort.with_observed({"y": rank >= count})


def conversion_model(cohort):
    """dx1/dt = -k1 x1 + k2 x2, x(0) = (1, 0), x2 observed; log k ~ N(log 0.1, 0.5^2)."""
    with pyro.plate("individual", len(cohort)):
        distribution = dist.Normal(torch.full((2,), math.log(0.1)), 0.5).to_event(1)
        k1, k2 = pyro.sample("log_k", distribution).exp().unbind(-1)
        y = cohort["y"]
        total = (k1 + k2)[..., None]
        x2 = k1[..., None] / total * (1 - torch.exp(-total * y.times))
        pyro.sample("y", dist.Normal(x2, 0.015).mask(y.observed).to_event(1), obs=y.values)


def fitzhugh_nagumo(a, b, c, times, steps_per_unit=40):
    """V at the times, by Runge-Kutta steps of fourth order: dv = c (v - v^3/3 + w), dw = -(v - a + b
    w) / c.
    """
    v, w = -torch.ones_like(a), torch.ones_like(a)
    gap = float(times[1] - times[0])
    num = math.ceil(gap * steps_per_unit)
    h, voltages = gap / num, [v]

    def slope(v, w):
        return c * (v - v * v * v / 3 + w), -(v - a + b * w) / c

    for _ in range(len(times) - 1):
        for _ in range(num):
            p1, q1 = slope(v, w)
            p2, q2 = slope(v + h / 2 * p1, w + h / 2 * q1)
            p3, q3 = slope(v + h / 2 * p2, w + h / 2 * q2)
            p4, q4 = slope(v + h * p3, w + h * q3)
            v = v + h / 6 * (p1 + 2 * p2 + 2 * p3 + p4)
            w = w + h / 6 * (q1 + 2 * q2 + 2 * q3 + q4)
        voltages.append(v)
    return torch.stack(voltages, -1)


def fitzhugh_nagumo_model(cohort):
    """log10 a, b, c ~ U(-2, 0), as the normal quantiles of the uniform; noise 0.05."""
    with pyro.plate("individual", len(cohort)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        a, b, c = (10 ** (2 * torch.special.ndtr(z) - 2)).unbind(-1)
        y = cohort["y"]
        v = fitzhugh_nagumo(a, b, c, FITZHUGH.times)
        pyro.sample("y", dist.Normal(v, 0.05).mask(y.observed).to_event(1), obs=y.values)


def pk_model(cohort):
    """One compartment, first-order absorption, three doses; log ka, CL, V and the log of an
    individual residual error on the log scale.
    """
    with pyro.plate("individual", len(cohort)):
        distribution = dist.Normal(torch.tensor(PK_MEAN), torch.tensor(PK_SD)).to_event(1)
        ka, cl, v, sigma = pyro.sample("phi", distribution).exp().unbind(-1)
        y = cohort["y"]
        conc = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        distribution = (
            dist.Normal((conc + 1e-6).log(), sigma[..., None]).mask(y.observed).to_event(1)
        )
        pyro.sample("y", distribution, obs=y.values)


PK_MEAN = [0.0, math.log(3.0), math.log(30.0), math.log(0.15)]
PK_SD = [0.5, 0.4, 0.4, 0.5]
PK_TIMES = [0.5, 1.0, 2.0, 4.0, 8.0, 11.5, 13.0, 16.0, 23.5, 25.0, 30.0, 36.0]


def _double(values):
    return torch.tensor(values, dtype=torch.float64)


CONVERSION = Problem(
    "conversion_reaction",
    conversion_model,
    _double([math.log(0.1)] * 2),
    _double([0.5, 0.5]),
    3.0 * torch.arange(11, dtype=torch.float64),
    8,
)
FITZHUGH = Problem(
    "fitzhugh_nagumo",
    fitzhugh_nagumo_model,
    _double([0.0] * 3),
    _double([1.0] * 3),
    0.75 * torch.arange(21, dtype=torch.float64),
    11,
)
PK = Problem("pk_doses", pk_model, _double(PK_MEAN), _double(PK_SD), _double(PK_TIMES), 6, 3)
PROBLEMS = {p.name: p for p in (CONVERSION, FITZHUGH, PK)}


# Exact posteriors.


@dataclass(frozen=True)
class Reference:
    """Of n data sets: log marginal likelihood, mean and sd of the parameters, and m draws with their
    log density. ``ess`` is the smallest effective sample size behind them (infinite for a grid).
    """

    log_marginal: torch.Tensor
    mean: torch.Tensor
    sd: torch.Tensor
    draws: torch.Tensor
    log_prob: torch.Tensor
    ess: float


def log_joint(problem, structure, cohort, draws):
    """Log p(y, u), shape (draw, individual); draws (draw, individual, latent)."""
    num = draws.shape[1]
    parts = [
        structure.log_observation(cohort, part, torch.zeros(num, 0))
        for part in draws.split(max(1, 200_000 // num))
    ]
    return torch.cat(parts) + problem.training.individual.normal.log_prob(draws)


def grid_reference(problem, cohort, num_draws, seed, size=121, block=50):
    """Two parameters: a grid that closes in on the posterior, three times."""
    generator = make_generator(seed)
    structure = pa.read_structure(problem.model, cohort[:64])
    unit, parts = torch.linspace(0, 1, size, dtype=torch.float64), []
    for rows in torch.arange(len(cohort)).split(block):
        part = cohort[rows]
        low = (problem.loc - 6 * problem.scale).expand(len(rows), -1)
        high = (problem.loc + 6 * problem.scale).expand(len(rows), -1)
        for last in (False, False, True):
            first = low[:, :1] + (high - low)[:, :1] * unit
            second = low[:, 1:] + (high - low)[:, 1:] * unit
            points = torch.stack(
                [first[:, :, None].expand(-1, -1, size), second[:, None].expand(-1, size, -1)], -1
            ).flatten(1, 2)
            values = log_joint(problem, structure, part, points.transpose(0, 1)).T
            step = (high - low) / (size - 1)
            if not last:
                kept = (values > values.amax(1, keepdim=True) - 20).unsqueeze(-1)
                low = torch.maximum(low, torch.where(kept, points, torch.inf).amin(1) - 2 * step)
                high = torch.minimum(high, torch.where(kept, points, -torch.inf).amax(1) + 2 * step)
        log_marginal = values.logsumexp(1) + step.log().sum(1)
        weights = values.softmax(1)
        mean = (weights.unsqueeze(-1) * points).sum(1)
        sd = (weights.unsqueeze(-1) * (points - mean.unsqueeze(1)) ** 2).sum(1).sqrt()
        picked = torch.multinomial(weights, num_draws, replacement=True, generator=generator)
        draws = points.gather(1, picked.unsqueeze(-1).expand(-1, -1, 2))
        log_prob = values.gather(1, picked) - log_marginal.unsqueeze(1)
        parts.append((log_marginal, mean, sd, draws, log_prob))
    return Reference(*(torch.cat(x) for x in zip(*parts, strict=True)), ess=math.inf)


def sampled_reference(problem, guide, cohort, num_draws, seed, size):
    """Any number of parameters: many weighted draws of the guide, a tenth of them from the prior."""
    generator = make_generator(seed)
    torch.manual_seed(seed)
    structure, parts, least = guide.structure, [], math.inf
    for rows in torch.arange(len(cohort)).split(10):
        part = cohort[rows]
        posterior = guide.posterior.condition(part, torch.zeros(0))
        prior = size // 10
        draws = posterior.rsample((size - prior,))
        more = problem.training.individual.normal.draw(prior * len(rows), generator).reshape(
            prior, len(rows), -1
        )
        draws = torch.cat([draws, more])
        mixture = torch.logaddexp(
            posterior.log_prob(draws) + math.log(0.9),
            problem.training.individual.normal.log_prob(draws) + math.log(0.1),
        )
        joint = log_joint(problem, structure, part, draws)
        log_weights = joint - mixture
        log_marginal = log_weights.logsumexp(0) - math.log(size)
        weights = log_weights.softmax(0)
        least = min(least, float((1 / (weights**2).sum(0)).min()))
        mean = (weights.unsqueeze(-1) * draws).sum(0)
        sd = (weights.unsqueeze(-1) * (draws - mean) ** 2).sum(0).sqrt()
        picked = torch.multinomial(weights.T, num_draws, replacement=True, generator=generator)
        chosen = draws.transpose(0, 1).gather(
            1, picked.unsqueeze(-1).expand(-1, -1, draws.shape[-1])
        )
        log_prob = joint.T.gather(1, picked) - log_marginal.unsqueeze(1)
        parts.append((log_marginal, mean, sd, chosen, log_prob))
    return Reference(*(torch.cat(x) for x in zip(*parts, strict=True)), ess=least)
