r"""The response of one exponential to many doses, carried from dose to dose.

Between the beginnings and ends of the doses the inflow r is constant, and the amount is

.. math:: x(t) = x(b)\, e^{-\lambda (t - b)} + \tfrac{r}{\lambda} (1 - e^{-\lambda (t - b)}) ,

with the last event b before t. The amounts at all events follow from each other. For n doses and m
times this takes n + m exponentials in place of the n times m of a sum over the doses
(:mod:`pyro_amortized.nlme.closed_form.superposition`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...numerics.broadcasting import broadcast_shape, gathered
from ..dosing import Arrivals


@dataclass(frozen=True)
class RecursionSettings:
    r"""When the amounts are carried from dose to dose.

    Args:
        min_doses: Smallest number of doses. A single one is a sum already.
    """

    min_doses: int = 2


RECURSION = RecursionSettings()


def can_be_carried(arriving: Arrivals) -> bool:
    """Whether every dose acts from its beginning on and for ever: no steady states, no resets."""
    doses = arriving.doses
    if doses.given.shape[-1] < RECURSION.min_doses or bool((doses.steady_state > 0).any()):
        return False
    return bool(torch.isinf(arriving.until).all()) and not bool(arriving.is_constant.any())


class DoseRecursion:
    r"""Responses to given doses at given times.

    Args:
        times: Observation times, shape ``(individual, time)``.
        arriving: The doses as they arrive.
    """

    def __init__(self, times: Tensor, arriving: Arrivals) -> None:
        given = arriving.doses.given
        begin = torch.where(given, arriving.begin, 0.0)  # no effect: their size is zero
        durations = torch.where(given, arriving.durations, 0.0)
        begin, durations = torch.broadcast_tensors(begin, durations)
        self.is_infused = durations > 0
        self.durations = torch.where(self.is_infused, durations, 1.0)
        self.has_ends = bool(self.is_infused.any())
        events = torch.cat([begin, begin + durations], -1) if self.has_ends else begin
        self.order = events.detach().argsort(dim=-1, stable=True)
        self.events = events.gather(-1, self.order)
        shape = broadcast_shape(times.shape[:-1], events.shape[:-1])
        times = times.expand(*shape, -1).contiguous()
        sorted_events = self.events.detach().expand(*shape, -1).contiguous()
        # Number of events at or before each time.
        self.index = torch.searchsorted(sorted_events, times, right=True)
        first = self.events[..., :1]
        last = gathered(torch.cat([first, self.events], -1), self.index)
        # Before the first event the amount is zero, and its decay must not overflow.
        self.since = (times - last).clamp(min=0)

    def response(self, rate: Tensor, sizes: Tensor) -> Tensor:
        r"""The sum of the responses to all doses.

        Args:
            rate: lambda, shape ``(*, individual, 1)``.
            sizes: Amounts of the doses, shape ``(*, individual, dose)``.

        Returns:
            Shape ``(*, individual, time)``.
        """
        jumps, inflow = self._effects(sizes)
        waits = self.events.diff(dim=-1)
        decays = torch.exp(-rate * waits)
        arrived = jumps[..., 1:]
        if self.has_ends:
            arrived = arrived + inflow[..., :-1] * _filled(rate, waits)
        amount = jumps[..., 0] + torch.zeros_like(rate[..., 0])
        amounts = [torch.zeros_like(amount), amount]
        for j in range(waits.shape[-1]):
            amount = amount * decays[..., j] + arrived[..., j]
            amounts.append(amount)
        remaining = gathered(torch.stack(amounts, -1), self.index) * torch.exp(-rate * self.since)
        if not self.has_ends:
            return remaining
        inflow = torch.cat([torch.zeros_like(inflow[..., :1]), inflow], -1)
        return remaining + gathered(inflow, self.index) * _filled(rate, self.since)

    def _effects(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Jump of the amount at each event, and the inflow after it, shape ``(*, individual,
        event)``; the inflow has no meaning where there are no infusions.
        """
        jumps = torch.where(self.is_infused, 0.0, sizes)
        if not self.has_ends:
            jumps = jumps.gather(-1, self.order.expand(jumps.shape))
            return jumps, jumps
        rates = torch.where(self.is_infused, sizes / self.durations, 0.0)
        jumps = torch.cat([jumps, torch.zeros_like(jumps)], -1)
        order = self.order.expand(jumps.shape)
        inflow = torch.cat([rates, -rates], -1).gather(-1, order).cumsum(-1)
        # The sum of rates that have begun and ended is zero but for rounding.
        one = self.is_infused.long()
        num_running = torch.cat([one, -one], -1).gather(-1, self.order).cumsum(-1)
        return jumps.gather(-1, order), torch.where(num_running > 0, inflow, 0.0)


def _filled(rate: Tensor, since: Tensor) -> Tensor:
    """The amount that an inflow of one has left after a time."""
    return -torch.expm1(-rate * since) / rate
