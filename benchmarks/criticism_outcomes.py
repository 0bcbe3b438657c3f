r"""Models of other outcomes, for `criticism.py`: repeated doses, yes/no values, counts, events.

- ``repeated``: the model ``pk`` of `criticism_studies.py` after five daily doses,
- ``yes_no``: eight yes/no values with a random logit,
- ``counts``: six Poisson counts with a random log rate,
- ``event``: one event with a Weibull hazard, whose frailty has a known variance.

In the last three the group moves the individual parameter, and the program estimates by how much.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from criticism_studies import PROBLEMS, SIGMA, Problem, Study, pk_curve, pk_program
from pyro_amortized import nlme

FRAILTY = 0.3
SHAPE = 1.5


def _program(sd, distribution):
    """A program whose individual parameter is moved by the group.

    Args:
        sd: Makes the standard deviation of the parameter.
        distribution: That of the values, from the parameter of the individuals and the cohort.
    """

    def program(cohort):
        typical = pyro.sample("typical", dist.Normal(0.0, 2.0))
        effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
        mean, deviation = typical[..., None] + effect[..., None] * cohort.covariates["group"], sd()
        with pyro.plate("individual", len(cohort)):
            level = pyro.sample("level", dist.Normal(mean, deviation))
            pyro.sample("y", distribution(level, cohort["y"]), obs=cohort["y"].values)

    return program


def _omega():
    return pyro.sample("omega", dist.HalfNormal(1.0))[..., None]


def _yes_no(level, y):
    logits = level[..., None].expand(y.values.shape)
    return dist.Bernoulli(logits=logits).mask(y.observed).to_event(1)


def _counts(level, y):
    rate = level.exp()[..., None].expand(y.values.shape)
    return dist.Poisson(rate).mask(y.observed).to_event(1)


def event_program(cohort):
    """The hazard of Weibull, proportional to the exponential of the parameter."""
    shape = pyro.sample("shape", dist.LogNormal(0.0, 0.5))

    def distribution(level, y):
        hazard = nlme.weibull_hazard(torch.ones_like(level), shape[..., None])
        return nlme.EventTimes(hazard.scaled(level.exp()), y)

    return _program(lambda: FRAILTY, distribution)(cohort)


def constant(study: Study, phi: Tensor) -> Tensor:
    return phi.expand(-1, study.times.shape[1])


def yes_or_no(study: Study, logits: Tensor) -> Tensor:
    uniform = torch.rand(logits.shape, generator=study.generator, dtype=torch.float64)
    return (uniform < logits.sigmoid()).double()


def poisson(study: Study, log_rate: Tensor) -> Tensor:
    return torch.poisson(log_rate.exp().clamp(max=1e4), generator=study.generator)


def event(study: Study, level: Tensor, shape: float | Tensor = SHAPE) -> Tensor:
    """Time and status until the end of the study."""
    uniform = torch.rand(len(study), generator=study.generator, dtype=torch.float64)
    time = (-uniform.log() * torch.exp(-level[:, 0])) ** (1 / shape)
    end = study.times[:, 0].double()
    return torch.stack([torch.minimum(time, end), (time < end).double()], -1)


def _outcome(program, times, omega, measure, *, typical=0.0, is_event=False) -> Problem:
    return Problem(
        program,
        times.double(),
        torch.tensor([typical]).double(),
        torch.tensor([omega]).double(),
        constant,
        torch.ones_like,
        (0, 0.0),
        main=0,
        group=0.6,
        measure=measure,
        is_event=is_event,
        is_other=True,
    )


_pk = PROBLEMS["pk"]
OTHERS = {
    "repeated": Problem(
        pk_program,
        torch.tensor([1.0, 4.0, 12.0, 24.0, 97.0, 100.0, 108.0, 120.0]).double(),
        _pk.typical,
        _pk.omega,
        pk_curve,
        lambda curve: SIGMA * curve,
        (1, 0.75),
        dosed=True,
        main=2,
        dose_times=(0.0, 24.0, 48.0, 72.0, 96.0),
        is_other=True,
    ),
    "yes_no": _outcome(_program(_omega, _yes_no), torch.arange(8), 1.0, yes_or_no, typical=-1.2),
    "counts": _outcome(_program(_omega, _counts), torch.arange(6), 0.5, poisson),
    "event": _outcome(event_program, torch.full((1,), 2.0), FRAILTY, event, is_event=True),
}
ALL = {**PROBLEMS, **OTHERS}
