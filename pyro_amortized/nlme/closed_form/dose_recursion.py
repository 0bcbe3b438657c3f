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

from ..dosing import Arrivals


@dataclass(frozen=True)
class RecursionSettings:
    """When the amounts are carried from dose to dose."""

    # Smallest number of doses. A single one is a sum already.
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
        shape = torch.broadcast_shapes(times.shape[:-1], events.shape[:-1])
        times = times.expand(*shape, -1).contiguous()
        sorted_events = self.events.detach().expand(*shape, -1).contiguous()
        # Number of events at or before each time.
        self.index = torch.searchsorted(sorted_events, times, right=True)
        first = self.events[..., :1]
        self.since = times - torch.cat([first, self.events], -1).expand(*shape, -1).gather(
            -1, self.index
        )

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
        decays, filled = self._decay(rate, waits)
        amount = jumps[..., 0] + torch.zeros_like(rate[..., 0])
        amounts = [torch.zeros_like(amount), amount]
        for j in range(waits.shape[-1]):
            amount = amount * decays[..., j] + inflow[..., j] * filled[..., j] + jumps[..., j + 1]
            amounts.append(amount)
        nothing = torch.zeros_like(inflow[..., :1])
        at_events = torch.stack(amounts, -1)
        decay, fill = self._decay(rate, self.since)
        remaining = _at(at_events, self.index) * decay
        if not self.has_ends:
            return remaining
        return remaining + _at(torch.cat([nothing, inflow], -1), self.index) * fill

    def _decay(self, rate: Tensor, since: Tensor) -> tuple[Tensor, Tensor]:
        """exp(-lambda t), and the amount that an inflow of one has left after t; zero where there
        are no infusions.
        """
        decay = torch.exp(-rate * since)
        return decay, -torch.expm1(-rate * since) / rate if self.has_ends else 0 * decay

    def _effects(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Jump of the amount at each event, and the inflow after it, shape ``(*, individual,
        event)``.
        """
        jumps = torch.where(self.is_infused, 0.0, sizes)
        if not self.has_ends:
            jumps = jumps.gather(-1, self.order.expand(jumps.shape))
            return jumps, torch.zeros_like(jumps)
        rates = torch.where(self.is_infused, sizes / self.durations, 0.0)
        jumps = torch.cat([jumps, torch.zeros_like(jumps)], -1)
        changes = torch.cat([rates, -rates], -1)
        order = self.order.expand(jumps.shape)
        return jumps.gather(-1, order), changes.gather(-1, order).cumsum(-1)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Values ``(*, individual, event)`` at the events of an index ``(*, individual, time)``."""
    shape = torch.broadcast_shapes(values.shape[:-1], index.shape[:-1])
    return values.expand(*shape, -1).gather(-1, index.expand(*shape, -1))
