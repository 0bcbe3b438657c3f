r"""Responses of linear compartment systems to doses, as sums of exponentials.

A bolus of 1 into the central compartment leaves :math:`\sum_j C_j e^{-\lambda_j t}` there. By
superposition every kind of dose is then a sum over j of its response in one exponential, h(lambda):

.. math::
   \text{bolus:}\quad & e^{-\lambda t} \\
   \text{infusion over } D:\quad & \tfrac{1}{D \lambda} (1 - e^{-\lambda \min(t, D)})\,
   e^{-\lambda \max(t - D, 0)} \\
   \text{steady state:}\quad & \textstyle\sum_{m \ge 0} h(t + m\,\mathit{II}),

the last as a geometric series. Input through a further exponential (a depot, or the formation of a
metabolite) is a divided difference of h,

.. math:: k\,\frac{h(\lambda) - h(k)}{k - \lambda},

taken as a central difference where the two rates are close.

References:
    Gibaldi and Perrier (1982), Pharmacokinetics, appendix B; Bertrand and Mentré (2008),
    Mathematical expressions of the pharmacokinetic and pharmacodynamic models implemented in
    Monolix.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dosing import Arrivals

CLOSE = 1e-5
Response = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Superposition:
    r"""Doses and observation times, ready to respond.

    Args:
        times: Observation times, shape ``(individual, time)``.
        found: The doses as they arrive.
    """

    times: Tensor
    found: Arrivals

    def response(self, rate: Tensor) -> Tensor:
        r"""h(lambda) for all doses, per unit of amount (per unit of rate for constant infusions).

        Args:
            rate: lambda, shape ``(*, individual, 1, 1)``.

        Returns:
            Shape ``(*, individual, time, dose)``.
        """
        found, doses = self.found, self.found.doses
        since = self.times.unsqueeze(-1) - found.begin.unsqueeze(-2)
        durations = found.durations.unsqueeze(-2)
        if not bool((doses.steady_state > 0).any()):
            unit = _once(rate, since.clamp(min=0), durations)
            return torch.where((since >= 0) & self._counts(), unit, torch.zeros_like(unit))
        interval = doses.intervals.unsqueeze(-2)
        endless = ((doses.steady_state > 0) & (doses.intervals > 0)).unsqueeze(-2)
        safe = torch.where(interval > 0, interval, torch.ones_like(interval))
        inside = since + torch.where(endless, safe * torch.ceil((-since / safe).clamp(min=0)), 0.0)
        train = _endless(rate, inside.clamp(min=0), durations, safe)
        unit = torch.where(endless, train, _once(rate, since.clamp(min=0), durations))
        unit = torch.where(inside >= 0, unit, torch.zeros_like(unit))
        recorded = self.times.unsqueeze(-1) - doses.times.unsqueeze(-2)
        constant = torch.exp(-rate * recorded.clamp(min=0)) / rate
        unit = torch.where(found.is_constant.unsqueeze(-2), constant, unit)
        return torch.where((recorded >= 0) & self._counts(), unit, torch.zeros_like(unit))

    def _counts(self) -> Tensor:
        """True where a dose still has an effect: nothing has ended it."""
        before_end = self.times.unsqueeze(-1) < self.found.until.unsqueeze(-2)
        return before_end & self.found.doses.given.unsqueeze(-2)

    @property
    def sizes(self) -> Tensor:
        """What the unit responses are multiplied by, shape ``(*, individual, 1, dose)``."""
        found = self.found
        constant = found.is_constant & found.doses.given
        return torch.where(constant, found.doses.rates, found.amounts).unsqueeze(-2)


def through(response: Response, rate: Tensor) -> Response:
    r"""The response behind one more exponential of the given rate, which receives the dose first.

    Args:
        response: h.
        rate: k, shape ``(*, individual, 1, 1)``.
    """

    def chained(other: Tensor) -> Tensor:
        middle, half = (rate + other) / 2, (rate - other) / 2
        near = half.abs() < CLOSE * middle
        step = torch.where(near, CLOSE * middle, half)
        low, high = middle - step, middle + step
        return rate * (response(low) - response(high)) / (2 * step)

    return chained


def _once(rate: Tensor, since: Tensor, durations: Tensor) -> Tensor:
    bolus = torch.exp(-rate * since)
    if not bool((durations > 0).any()):
        return bolus
    safe = torch.where(durations > 0, durations, torch.ones_like(durations))
    filled = -torch.expm1(-rate * torch.minimum(since, safe)) / (rate * safe)
    infused = filled * torch.exp(-rate * (since - safe).clamp(min=0))
    return torch.where(durations > 0, infused, bolus)


def _endless(rate: Tensor, since: Tensor, durations: Tensor, interval: Tensor) -> Tensor:
    """Sum of the responses to doses now and at every earlier interval."""
    share = -torch.expm1(-rate * interval)
    bolus = torch.exp(-rate * since) / share
    if not bool((durations > 0).any()):
        return bolus
    safe = torch.where(durations > 0, durations, torch.ones_like(durations))
    running = torch.ceil((safe - since) / interval).clamp(min=0)
    filling = torch.exp(-rate * since) * torch.expm1(-rate * interval * running) / share + running
    ended = torch.exp(-rate * (since + running * interval - safe).clamp(min=0))
    infused = (filling - torch.expm1(-rate * safe) * ended / share) / (rate * safe)
    return torch.where(durations > 0, infused, bolus)
