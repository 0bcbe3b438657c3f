r"""Three models and simulated studies of them, for `criticism.py`.

- ``pk``: one compartment with absorption in closed form, three doses, proportional error,
- ``growth``: a straight line :math:`y_{ij} = a_i + b_i t_j`, additive error, the effect of a group,
- ``ode``: a turnover of a response under a stimulus, solved numerically, proportional error.

In all of them one parameter depends on the weight in a way that the program takes as known. The
individual parameters are normally distributed, in ``pk`` and ``ode`` in their logarithms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Generator, Tensor

import pyro_amortized as pa
from pyro_amortized import nlme

PK = {"labels": ["ka", "cl", "v"]}
ODE = {"labels": ["baseline", "rate", "effect"]}
SIGMA = 0.15


@dataclass(frozen=True)
class Study:
    """A simulated study before it is a cohort; shapes start with the individual."""

    problem: "Problem"
    phi: Tensor
    times: Tensor
    amounts: Tensor
    covariates: dict[str, Tensor]
    generator: Generator
    values: Tensor | None = None
    observed: Tensor | None = None

    def __len__(self) -> int:
        return len(self.phi)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def doses(self) -> pa.Doses:
        times = torch.tensor(self.problem.dose_times).expand(len(self), -1)
        return pa.Doses(times=times, amounts=self.amounts)

    def cohort(self) -> pa.Cohort:
        if self.problem.is_event:
            event = nlme.event_series(
                self.values[:, 0], self.values[:, 1] > 0, end=self.times[:, 0]
            )
            return pa.Cohort({"y": event}, covariates=self.covariates)
        series = {"y": pa.Series(self.times, self.values, self.observed)}
        return pa.Cohort(series, self.doses() if self.problem.dosed else None, self.covariates)


@dataclass(frozen=True)
class Problem:
    """A model and the truth of its studies.

    Args:
        program: The model that is fitted.
        times: Planned times.
        typical: Typical values of the individual parameters.
        omega: Their standard deviations.
        curve: Curves of the individuals, from a study and its parameters.
        deviation: Standard deviation of the errors, from the curves.
        weight: Index of the parameter that depends on the weight, and its slope in log(weight / 70).
        dosed: Whether there are doses.
        main: Index of the parameter that most defects move; the data say much about it.
        group: What the group adds to the main parameter.
        dose_times: Times of the doses, all of one amount.
        measure: Values that are drawn from the curves; by default they have normal errors.
        is_event: Whether the values are the time and the status of an event.
        is_other: Whether only defects that name the model are planted.
    """

    program: Callable
    times: Tensor
    typical: Tensor
    omega: Tensor
    curve: Callable[[Study, Tensor], Tensor]
    deviation: Callable[[Tensor], Tensor]
    weight: tuple[int, float]
    dosed: bool = False
    main: int = 1
    group: float = 0.0
    dose_times: tuple[float, ...] = (0.0,)
    measure: Callable[[Study, Tensor], Tensor] | None = None
    is_event: bool = False
    is_other: bool = False


def log_weight(covariates: dict[str, Tensor]) -> Tensor:
    return (covariates["weight"] / 70).log().double()


def error(prediction: Tensor, deviation: Tensor, series: pa.Series) -> dist.Distribution:
    noise = dist.Normal(prediction, deviation).mask(series.observed).to_event(1)
    return pyro.sample("y", noise, obs=series.values)


def pk_program(cohort):
    prior = dist.Normal(torch.tensor([0.5, 1.0, 3.5]), 1.0).to_event(1)
    typical = pyro.sample("typical", prior, infer=PK)
    omega = pyro.sample("omega", dist.HalfNormal(torch.full((3,), 0.5)).to_event(1), infer=PK)
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1), infer=PK)
        ka, cl, v = phi.exp().unbind(-1)
        cl = cl * (cohort.covariates["weight"] / 70) ** 0.75
        y = cohort["y"]
        prediction = nlme.one_compartment(y.times, cohort.doses, ka=ka, cl=cl, v=v)
        error(prediction, sigma[..., None] * prediction, y)


def pk_curve(study: Study, phi: Tensor) -> Tensor:
    ka, cl, v = phi.exp().unbind(-1)
    return nlme.one_compartment(study.times, study.doses(), ka=ka, cl=cl, v=v)


def growth_program(cohort):
    typical = pyro.sample("typical", dist.Normal(torch.tensor([85.0, 6.0]), 10.0).to_event(1))
    effect = pyro.sample("effect", dist.Normal(0.0, 2.0))
    omega = pyro.sample("omega", dist.HalfNormal(torch.tensor([8.0, 2.0])).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(3.0))
    weight, group = log_weight(cohort.covariates), cohort.covariates["group"]
    with pyro.plate("individual", len(cohort)):
        moved = torch.stack([8.0 * weight.expand_as(group), effect[..., None] * group], -1)
        mean = typical.unsqueeze(-2) + moved
        phi = pyro.sample("phi", dist.Normal(mean, omega.unsqueeze(-2)).to_event(1))
        height, slope = phi.unbind(-1)
        y = cohort["y"]
        error(height[..., None] + slope[..., None] * y.times, sigma[..., None], y)


def growth_curve(study: Study, phi: Tensor) -> Tensor:
    return phi[:, :1] + phi[:, 1:] * study.times


def turnover(t, x, p):
    """A response with a baseline that a stimulus raises while it decays."""
    stimulus = torch.exp(-0.1 * t)
    production = p["rate"] * p["baseline"] * (1 + p["effect"] * stimulus / (0.5 + stimulus))
    return production[:, None] - p["rate"][:, None] * x


def turnover_curve(times: Tensor, phi: Tensor) -> Tensor:
    baseline, rate, effect = phi.exp().unbind(-1)
    p = {"baseline": baseline, "rate": rate, "effect": effect}
    return nlme.solve(turnover, baseline.unsqueeze(-1), times, p)[..., 0]


def ode_program(cohort):
    prior = dist.Normal(torch.tensor([3.0, -1.0, 0.5]), 1.0).to_event(1)
    typical = pyro.sample("typical", prior, infer=ODE)
    omega = pyro.sample("omega", dist.HalfNormal(torch.full((3,), 0.5)).to_event(1), infer=ODE)
    sigma = pyro.sample("sigma", dist.HalfNormal(0.5))
    weight = log_weight(cohort.covariates)
    with pyro.plate("individual", len(cohort)):
        phi = pyro.sample("phi", dist.Normal(typical, omega).to_event(1), infer=ODE)
        baseline, rate, effect = phi.unbind(-1)
        y = cohort["y"]
        moved = torch.stack([baseline + 0.75 * weight, rate, effect], -1)
        prediction = turnover_curve(y.times, moved)
        error(prediction, sigma[..., None] * prediction, y)


PROBLEMS = {
    "pk": Problem(
        pk_program,
        torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0]).double(),
        torch.tensor([0.4, 1.2, 3.6]).double(),
        torch.tensor([0.4, 0.25, 0.2]).double(),
        pk_curve,
        lambda curve: SIGMA * curve,
        (1, 0.75),
        dosed=True,
        main=2,
    ),
    "growth": Problem(
        growth_program,
        torch.arange(8).double(),
        torch.tensor([85.0, 6.0]).double(),
        torch.tensor([4.0, 0.8]).double(),
        growth_curve,
        torch.ones_like,
        (0, 8.0),
        group=0.6,
    ),
    "ode": Problem(
        ode_program,
        torch.tensor([0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 36.0]).double(),
        torch.tensor([3.0, -1.2, 0.7]).double(),
        torch.tensor([0.3, 0.4, 0.3]).double(),
        lambda study, phi: turnover_curve(study.times, phi),
        lambda curve: 0.1 * curve,
        (0, 0.75),
        main=0,
    ),
}


def study_of(problem: Problem, num: int, seed: int) -> Study:
    """Individuals, times, doses and covariates; values are still to be simulated."""
    generator = torch.Generator().manual_seed(seed)
    eta = problem.omega * torch.randn(
        num, len(problem.omega), generator=generator, dtype=torch.float64
    )
    covariates = {
        "sex": (torch.rand(num, generator=generator) < 0.5).float(),
        "weight": 70 * torch.exp(0.2 * torch.randn(num, generator=generator)),
        "age": 20 + 50 * torch.rand(num, generator=generator),
        "site": torch.randint(4, (num,), generator=generator).float(),
        "group": (torch.arange(num) % 2).float(),
    }
    amounts = 50.0 * 2.0 ** torch.randint(3, (num, 1), generator=generator)
    amounts = amounts.expand(-1, len(problem.dose_times)).clone()
    times = problem.times.expand(num, -1).clone()
    phi = problem.typical + eta
    phi[:, problem.main] += problem.group * covariates["group"]
    return Study(problem, phi, times, amounts.double(), covariates, generator)
