"""Other structures, populations and outcomes than those of the models, for `criticism_practice.py`:
steps of a simulated study.
"""

from dataclasses import replace

import torch
from torch import Tensor

from criticism_defects import effects
from criticism_outcomes import event, poisson, yes_or_no
from criticism_studies import Study


def baseline(study: Study, size: float) -> Tensor:
    """A constant, of the size times the median of the last values."""
    right = study.problem.curve(study, study.phi)
    return right + size * right[:, -1].median()


def second_peak(study: Study, size: float) -> Tensor:
    right = study.problem.curve(study, study.phi)
    bump = torch.exp(-0.5 * ((study.times - 8.0) / 1.5).square())
    return right * (1 + size * bump)


def saturated(study: Study, size: float) -> Tensor:
    """The elimination of Michaelis and Menten, on a grid of Euler steps."""
    ka, cl, v = study.phi.exp().unbind(-1)
    amount = study.amounts[:, 0]
    half = (amount / v).median() / size
    steps = 2400
    h = float(study.times.max()) / steps
    gut, central = amount.clone(), torch.zeros_like(amount)
    course = [central / v]
    for _ in range(steps):
        c = central / v
        out = cl * c * (1 + 1 / size) / (1 + c / half)
        central = central + h * (ka * gut - out)
        gut = gut - h * ka * gut
        course.append(central / v)
    index = (study.times / h).round().long().clamp(max=steps)
    return torch.stack(course, 1).gather(1, index).clamp(min=1e-3)


def lag_of_some(study: Study, size: float) -> Tensor:
    """Half of the individuals, not recorded who, took the dose with food: absorption is late."""
    late = torch.rand(len(study), 1, generator=study.generator) < 0.5
    after = (study.times - size * late).clamp(min=0.0)
    return study.problem.curve(replace(study, times=after), study.phi).clamp(min=1e-3)


def missed_doses(study: Study, size: float) -> Tensor:
    """The last but one and the last dose of a part of the individuals were not taken."""
    amounts = study.amounts.clone()
    amounts[:: round(1 / size), -2:] = 0.0
    return study.problem.curve(replace(study, amounts=amounts), study.phi).clamp(min=1e-3)


def falling_clearance(study: Study, size: float) -> Tensor:
    """Clearance changes from the first to the last day."""
    other = study.phi.clone()
    other[:, 1] += size
    first, last = (study.problem.curve(study, x) for x in (study.phi, other))
    return torch.where(study.times > 48.0, last, first)


def siblings(study: Study, size: float) -> Tensor:
    """Neighbours of the file are alike: sites or families that are not recorded."""
    e, main = effects(study), study.problem.main
    shared = study.normal(len(study) // 6 + 1).repeat_interleave(6)[: len(study)]
    mixed = size**0.5 * shared + (1 - size) ** 0.5 * e[:, main]
    return (
        study.phi
        + (mixed - e[:, main]).unsqueeze(-1)
        * study.problem.omega
        * torch.eye(len(study.problem.omega), dtype=torch.float64)[main]
    )


def rising(study: Study, size: float) -> Tensor:
    """The level changes with time."""
    x = torch.linspace(-1, 1, study.times.shape[1]).double()
    return study.problem.curve(study, study.phi) + size * x


def zero_inflated(study: Study, size: float) -> Tensor:
    values = poisson(study, study.values)
    zero = torch.rand(values.shape, generator=study.generator) < size
    return values.masked_fill(zero, 0.0)


def overdispersed(study: Study, size: float) -> Tensor:
    """Rates differ between the visits."""
    return poisson(study, study.values + size * study.normal(*study.values.shape))


def sticky(study: Study, size: float) -> Tensor:
    """A yes/no value is, with a probability, that of the visit before."""
    values = yes_or_no(study, study.values)
    stays = torch.rand(values.shape, generator=study.generator) < size
    for j in range(1, values.shape[1]):
        values[:, j] = torch.where(stays[:, j], values[:, j - 1], values[:, j])
    return values


def crossing_hazards(study: Study, size: float) -> Tensor:
    """The hazard of the group grows fast, that of the others slowly."""
    shape = torch.where(study.covariates["group"] == 1, 1.5 * size, 1.5 / size).double()
    return event(study, study.values, shape)


def cured(study: Study, size: float) -> Study:
    """A part of the individuals never has the event, and the study is three times as long."""
    longer = replace(study, times=3 * study.times)
    values = event(longer, study.phi)
    never = torch.rand(len(study), generator=study.generator) < size
    values[never, 0], values[never, 1] = longer.times[never, 0].double(), 0.0
    return replace(longer, values=values)


def late_by_site(study: Study) -> Tensor:
    return (study.covariates["site"] == 2).double()


def order(study: Study) -> Tensor:
    return torch.linspace(-1, 1, len(study)).double()
