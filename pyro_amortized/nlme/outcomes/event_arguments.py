"""Constants of the times of events, and their arguments, checked."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...cohort import Series
from ...errors import ModelError
from ...runtime.arguments import check_is

Clock = Literal["forward", "reset"]


@dataclass(frozen=True)
class EventSettings:
    r"""How events are drawn where the cumulative hazard has no inverse in closed form.

    Args:
        num_points: Times of a grid on which the cumulative hazard is computed.
        num_rounds: Grids, each between two neighbouring times of the grid before. The last interval
            is 5e-5 of the follow-up and is interpolated, with an error of its square where the
            hazard is smooth. Every point of a grid costs a quadrature.
        smallest_gap: Smallest cumulative hazard of an interval with an event, so that its logarithm
            and its gradient are finite.
        visit_tolerance: Largest distance of an event from the visit that has found it, relative to
            its time: the rounding of single precision. Beyond it the event is at no visit.
        largest_log: Largest logarithm of a hazard, in absolute value, that is neither zero nor
            infinite: a Weibull hazard at time 0 is computed at 1e-300, with a logarithm beyond it
            for every exponent that differs from one by 0.15 or more.
        fall_tolerance: Largest fall of a cumulative hazard between begin and end that passes as the
            error of a solver, relative to one plus its value.
    """

    num_points: int = 13
    num_rounds: int = 4
    smallest_gap: float = 1e-12
    visit_tolerance: float = 1e-6
    fall_tolerance: float = 1e-4
    largest_log: float = 100.0


EVENTS = EventSettings()


def of_each(name: str, value: Tensor | float, num: int, dtype: torch.dtype) -> Tensor:
    """An argument with one time for each individual, shape ``(individual, 1)``."""
    times = torch.as_tensor(value, dtype=dtype).detach()
    if times.shape not in (torch.Size([]), torch.Size([1]), torch.Size([num])):
        raise ModelError(
            f"`{name}` of the times of events has shape {tuple(times.shape)}.",
            f"({num},), one time for each individual, or a number.",
            f"pass a covariate, for instance `{name}=cohort.covariates[...]`.",
        )
    return times.reshape(-1, 1).expand(num, 1)


def finite_visits(visits: Series | Tensor, num: int) -> Tensor:
    """Times of visits, infinite where there is none."""
    check_is("visits", visits, (Series, Tensor), "pass a series of `time_varying`.", ModelError)
    if isinstance(visits, Series):
        found = torch.where(visits.observed, visits.times, torch.inf)
    else:
        found = visits.detach().nan_to_num(torch.inf)
    if found.dim() != 2 or len(found) != num:
        raise ModelError(
            f"`visits` has shape {tuple(found.shape)}.",
            f"(individual={num}, visit).",
            "pass the visits that `nlme.interval_series` gives, from `cohort.time_varying`; times "
            "that all individuals share are expanded, `times.expand(len(cohort), -1)`.",
        )
    return found


def check_clock(clock: str) -> None:
    r"""Raise unless a clock is known.

    Raises:
        ModelError: It is neither ``"forward"`` nor ``"reset"``.
    """
    if clock not in ("forward", "reset"):
        raise ModelError(
            f"`clock` of the times of events is {clock!r}.",
            '"forward", time since the begin, or "reset", time since the event before.',
            "correct `clock=`.",
        )
