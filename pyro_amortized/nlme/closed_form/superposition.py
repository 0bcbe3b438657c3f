r"""Responses of linear compartment systems to doses, as sums of exponentials.

After a bolus of amount 1 into the central compartment, the amount there is
:math:`\sum_j C_j e^{-\lambda_j t}`. Because the system is linear, the response to any dose is
:math:`\sum_j C_j h(\lambda_j)`, where h is the response of one exponential:

.. math::
   \text{bolus:}\quad & e^{-\lambda t} \\
   \text{infusion over } D:\quad & \tfrac{1}{D \lambda} (1 - e^{-\lambda \min(t, D)})\,
   e^{-\lambda \max(t - D, 0)} \\
   \text{steady state:}\quad & \textstyle\sum_{m \ge 0} h(t + m\,\mathit{II}),

where the last sum is a geometric series. If the dose first passes a compartment with the rate k (a
depot, or the formation of a metabolite), the response is a divided difference of h,

.. math:: k\,\frac{h(\lambda) - h(k)}{k - \lambda},

which is computed as a central difference where the two rates are close. The module takes the doses
as they arrive (``Arrivals`` of :mod:`pyro_amortized.nlme.dosing`) and gives h for all doses and
times.

References:
    Gibaldi and Perrier (1982), Pharmacokinetics, appendix B; Bertrand and Mentré (2008),
    Mathematical expressions of the pharmacokinetic and pharmacodynamic models implemented in
    Monolix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..dosing import Arrivals

Response = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class DifferenceSettings:
    r"""How the divided difference is computed.

    Args:
        close: Half of the relative difference of two rates below which it is replaced by a central
            difference of this half width. Its relative error is then about 1e-10, the square; the
            rounding error of the divided difference is about 1e-11.
    """

    close: float = 1e-5


DEFAULTS = DifferenceSettings()


class _SteadyStates(NamedTuple):
    r"""Times of doses of which some are at steady state, shape ``(*, individual, time, dose)``.

    Args:
        since_last: Times since the last dose of a series.
        interval: Intervals, 1 where there is none.
        repeated: Whether a dose is one of a series, shape ``(*, individual, 1, dose)``.
        all_repeated: Whether all are.
        since_record: Times since the record of a constant infusion, or None where there are none.
    """

    since_last: Tensor
    interval: Tensor
    repeated: Tensor
    all_repeated: bool
    since_record: Tensor | None


class _Timing(NamedTuple):
    r"""Times of all doses, shape ``(*, individual, time, dose)``.

    Args:
        since: Times since the arrival, at least zero.
        acts: Whether a dose has an effect, or None where all have.
        steady: Of steady states, or None where there are none.
    """

    since: Tensor
    acts: Tensor | None
    steady: _SteadyStates | None


@dataclass(frozen=True, eq=False)
class Superposition:
    r"""The responses to given doses at given times.

    Args:
        times: Observation times, shape ``(individual, time)``.
        arriving: The doses as they arrive.
    """

    times: Tensor
    arriving: Arrivals

    def response(self, rate: Tensor) -> Tensor:
        r"""h(lambda) for all doses, per unit of amount (per unit of rate for constant infusions).

        It has no meaning where a dose has no effect; :attr:`sizes` is zero there.

        Args:
            rate: lambda, shape ``(*, individual, 1, 1)``.

        Returns:
            Shape ``(*, individual, time, dose)``.
        """
        timing, durations = self._timing, self.arriving.durations.unsqueeze(-2)
        if timing.steady is None:
            return _single_response(rate, timing.since, durations)
        steady = timing.steady
        unit = _steady_response(rate, steady.since_last, durations, steady.interval)
        if not steady.all_repeated:
            single = _single_response(rate, timing.since, durations)
            unit = torch.where(steady.repeated, unit, single)
        if steady.since_record is not None:
            constant = torch.exp(-rate * steady.since_record) / rate
            unit = torch.where(self.arriving.is_constant.unsqueeze(-2), constant, unit)
        return unit

    @cached_property
    def _timing(self) -> "_Timing":
        """What the responses of all exponentials have in common."""
        arriving, doses = self.arriving, self.arriving.doses
        since = self.times.unsqueeze(-1) - arriving.begin.unsqueeze(-2)
        if not bool((doses.steady_state > 0).any()):
            return _Timing(since.clamp(min=0), _unless_all((since >= 0) & self._has_effect()), None)
        interval = doses.intervals.unsqueeze(-2)
        is_repeated = (doses.steady_state > 0) & (doses.intervals > 0)
        repeated = is_repeated.unsqueeze(-2)
        safe = torch.where(interval > 0, interval, torch.ones_like(interval))
        # Between the record and the end of the lag time the last dose is one that arrived earlier.
        shift = torch.where(repeated, safe * torch.ceil((-since / safe).clamp(min=0)), 0.0)
        since_last = since + shift
        since_record = self.times.unsqueeze(-1) - doses.times.unsqueeze(-2)
        acts = (since_record >= 0) & self._has_effect()
        is_constant = arriving.is_constant.unsqueeze(-2)
        any_constant = bool(is_constant.any())
        steady = _SteadyStates(
            since_last.clamp(min=0),
            safe,
            repeated,
            bool((is_repeated | ~doses.given).all()),
            since_record.clamp(min=0) if any_constant else None,
        )
        acts = acts & ((since_last >= 0) | is_constant)
        return _Timing(since.clamp(min=0), _unless_all(acts), steady)

    def _has_effect(self) -> Tensor:
        """True where no later record has ended the effect of a dose; doses of the padding have a
        size of zero. Its last dimension is 1 where no record ends any effect.
        """
        return self.times.unsqueeze(-1) < self.arriving.until.unsqueeze(-2)

    @property
    def sizes(self) -> Tensor:
        """Factors of the unit responses, shape ``(*, individual, time, dose)``: amounts, and rates
        of constant infusions; zero where a dose has no effect. The times are 1 where the factors
        are the same at all times.
        """
        arriving, acts = self.arriving, self._timing.acts
        constant = arriving.is_constant & arriving.doses.given
        sizes = torch.where(constant, arriving.doses.rates, arriving.amounts).unsqueeze(-2)
        return sizes if acts is None else torch.where(acts, sizes, 0.0)


def through(response: Response, rate: Tensor) -> Response:
    r"""Response to a dose that first passes a compartment with the given rate.

    Args:
        response: h, the response to a dose that enters directly.
        rate: k, shape ``(*, individual, 1, 1)``.
    """

    def delayed(other: Tensor) -> Tensor:
        middle, half = (rate + other) / 2, (rate - other) / 2
        smallest = DEFAULTS.close * middle
        step = torch.where(half.abs() < smallest, smallest, half)
        low, high = middle - step, middle + step
        return (response(low) - response(high)) * (rate / (2 * step))

    return delayed


def _unless_all(acts: Tensor) -> Tensor | None:
    return None if bool(acts.all()) else acts


def _single_response(rate: Tensor, since: Tensor, durations: Tensor) -> Tensor:
    """Response to one bolus, or to one infusion where the duration is positive."""
    bolus = (-rate * since).exp_()
    if not bool((durations > 0).any()):
        return bolus
    safe = torch.where(durations > 0, durations, torch.ones_like(durations))
    filled = -torch.expm1(-rate * torch.minimum(since, safe)) / (rate * safe)
    infused = filled * torch.exp(-rate * (since - safe).clamp(min=0))
    return torch.where(durations > 0, infused, bolus)


def _steady_response(rate: Tensor, since: Tensor, durations: Tensor, interval: Tensor) -> Tensor:
    """Sum of the responses to this dose and to equal doses at all earlier intervals."""
    eliminated = -torch.expm1(-rate * interval)  # fraction in one interval
    bolus = torch.addcmul(-eliminated.log(), rate, since, value=-1).exp_()
    if not bool((durations > 0).any()):
        return bolus
    safe = torch.where(durations > 0, durations, torch.ones_like(durations))
    num_running = torch.ceil((safe - since) / interval).clamp(min=0)  # infusions at the same time
    decayed = torch.exp(-rate * since)
    running = decayed * torch.expm1(-rate * interval * num_running) / eliminated + num_running
    since_end = (since + num_running * interval - safe).clamp(min=0)  # of the last that has ended
    ended = torch.expm1(-rate * safe) * torch.exp(-rate * since_end) / eliminated
    infused = (running - ended) / (rate * safe)
    return torch.where(durations > 0, infused, bolus)
