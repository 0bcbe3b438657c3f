r"""Linear compartments whose parameters change between occasions.

Within an occasion the amounts x follow :math:`\dot x = A x + r` with constant A, so that over a gap
:math:`\Delta` between doses, ends of infusions, changes of the occasion and observations

.. math:: x(t + \Delta) = e^{A \Delta} x(t) + \Big(\int_0^\Delta e^{A s}\, \mathrm ds\Big)\, r .

What an earlier occasion has left is carried over with the parameters of the new one, as in the ODE.
The exponentials are closed (:mod:`pyro_amortized.nlme.closed_form.compartment_systems`).
"""

import functools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...cohort import Doses
from ...errors import ModelError
from ...numerics.broadcasting import broadcast_shape
from ..dosing import Delivery, arrivals, check_compartments
from ..interoccasion_variability import Occasions
from ..quantities import Quantity, as_quantity, check_times_and_doses
from .compartment_systems import CompartmentSystem, Matrix
from .copied_individuals import once_per_copy


@dataclass(frozen=True, eq=False)
class _Points:
    r"""All times at which something happens, in order, shape ``(*, individual, point)``.

    Args:
        gaps: Time since the point before; 0 at the first one.
        occasion: Occasion of the gap before the point.
        source: Number of the event among resets, doses, ends of infusions, changes of the occasion
            and observations.
        place: Place of each observation among the points, shape ``(*, individual, time)``.
    """

    gaps: Tensor
    occasion: Tensor
    source: Tensor
    place: Tensor


def by_occasions(
    times: Tensor,
    doses: Doses,
    parameters: dict[str, Quantity],
    absorption: Quantity | None,
    delivery: Delivery | None,
    occasions: Occasions,
) -> Tensor:
    r"""Concentration in the central compartment.

    Args:
        times: Observation times, shape ``(individual, time)``.
        doses: The doses.
        parameters: ``cl`` and ``v``, and for further compartments ``q``, ``v2``, ``q3``, ``v3``,
            shape ``(occasion, individual)`` or ``(individual,)`` each.
        absorption: Absorption rate, or None.
        delivery: How the doses arrive.
        occasions: The occasions.

    Returns:
        Shape ``(individual, time)``.

    Raises:
        ModelError: A parameter has another shape, or a steady state with a lag time or of a
            constant infusion is asked for.
    """
    check_times_and_doses(times, doses)
    check_compartments(doses, 1 if absorption is None else 2)
    num = len(times)
    named = parameters if absorption is None else {"ka": absorption, **parameters}
    own = {n: _each(n, x, times, num, occasions.number) for n, x in named.items()}
    once = once_per_copy(times, doses)
    system = CompartmentSystem({n: once.split(x).movedim(0, -1) for n, x in own.items()})
    times, doses = once.times, once.doses
    changes, index = (x[: len(times)] for x in (occasions.changes, occasions.index))
    arriving = arrivals(doses, once.delivery(delivery))
    _check_steady_states(doses, arriving.lag)
    given = doses.given & (arriving.begin < arriving.until)
    begin = torch.where(given, arriving.begin, doses.times)
    infused = given & (arriving.durations > 0)
    events = _DoseEvents(
        begin,
        torch.where(given & ~infused, arriving.amounts, 0.0).expand_as(begin),
        torch.where(infused, arriving.rates, 0.0).expand_as(begin),
        torch.where(infused, arriving.durations, 0.0).expand_as(begin),
        torch.where(infused, torch.minimum(begin + arriving.durations, arriving.until), begin),
        doses,
        changes.to(times.dtype),
    )
    return once.join(_carried(_points(times, events), system, events, index))


def _each(name: str, value: Quantity, times: Tensor, num: int, number: int) -> Tensor:
    """A parameter with its value on each occasion, shape ``(occasion, individual)``."""
    x = as_quantity(name, value, times, num)
    if x.dim() > 2 or (x.dim() == 2 and x.shape[0] not in (1, number)):
        raise ModelError(
            f"`{name}` has the shape {tuple(x.shape)}; there are {number} occasions and {num} "
            "individuals.",
            "shape (occasion, individual), as sites of `pyro.plate('occasion', visits.number, "
            "dim=-2)` have it, or (individual,).",
            "put the occasions first; leave draws to the rows of the cohort.",
        )
    x = x if x.dim() == 2 else x.unsqueeze(0)
    return x.expand(number, num)


def _check_steady_states(doses: Doses, lag: Tensor) -> None:
    steady = doses.given & (doses.steady_state > 0)
    constant = steady & (doses.amounts == 0)
    if bool(constant.any()) or (bool(steady.any()) and bool((lag != 0).any())):
        raise ModelError(
            "There is a steady state of a constant infusion, or one with a lag time, and the "
            "parameters change between occasions.",
            "steady states of repeated doses without a lag time.",
            "write the model as an ODE: `nlme.solve(..., piecewise=visits.piecewise(...))`.",
        )


@dataclass(frozen=True, eq=False)
class _DoseEvents:
    """What happens at each dose, shape ``(*, individual, dose)`` each, and the changes of the
    occasion, shape ``(individual, change)``.
    """

    begin: Tensor
    boluses: Tensor
    rates: Tensor
    durations: Tensor
    ends: Tensor
    records: Doses
    changes: Tensor

    @cached_property
    def has_infusions(self) -> bool:
        """Whether any dose is infused."""
        return bool((self.durations > 0).any())

    @cached_property
    def has_resets(self) -> bool:
        """Whether any record empties the compartments."""
        return bool((self.records.given & self.records.reset).any())

    @cached_property
    def empties(self) -> bool:
        """Whether the compartments are emptied by a reset or a steady state of kind 1."""
        return self.has_resets or bool(
            (self.records.given & (self.records.steady_state == 1)).any()
        )

    def kinds(self, reset: Tensor, begin: Tensor, end: Tensor) -> list[Tensor]:
        """Of what resets, doses and ends of infusions do, those that there are."""
        resets = [reset] if self.has_resets else []
        return [*resets, begin, *([end] if self.has_infusions else [])]

    def into(self, values: Tensor, state: int) -> Tensor:
        """The part of the doses that enters a state."""
        return torch.where(self.records.compartment == state + 1, values, 0.0)


def _points(times: Tensor, events: _DoseEvents) -> _Points:
    """The events in the order of time; of equal times resets come first, then doses, ends, changes
    and observations, so that an observation sees the dose at its time.
    """
    records, lead = events.records, events.begin.shape[:-1]
    resets = torch.where(records.given & records.reset, records.times, torch.inf)
    every = [*events.kinds(resets, events.begin, events.ends), events.changes, times]
    together = torch.cat([x.expand(*lead, -1) for x in every], -1)
    # Events that do not happen (infinite times) come last and change nothing.
    known = together.isfinite()
    latest = torch.where(known, together, -torch.inf).amax(-1, keepdim=True)
    together = torch.where(known, together, latest)
    source = together.detach().argsort(dim=-1, stable=True)
    ordered = together.gather(-1, source)
    gaps = torch.cat([torch.zeros_like(ordered[..., :1]), ordered.diff(dim=-1)], -1)
    before = torch.cat([ordered[..., :1], ordered[..., :-1]], -1).detach()
    occasion = (before.unsqueeze(-1) >= events.changes.unsqueeze(-2)).sum(-1)
    numbers = torch.arange(source.shape[-1]).expand(source.shape)
    back = torch.empty_like(source).scatter(-1, source, numbers)
    return _Points(gaps, occasion, source, back[..., -times.shape[-1] :])


def _carried(
    points: _Points, system: CompartmentSystem, events: _DoseEvents, index: Tensor
) -> Tensor:
    """The concentrations at the observation times, carried from point to point."""
    exponential, integral = system.transition(
        points.gaps, points.occasion, with_integral=events.has_infusions
    )
    states = range(system.num_states)
    emptied = _at_points(points, events, *_resets(events)) if events.empties else None
    steady = _steady_states(system, events)
    zero = torch.zeros_like(events.begin)
    jumps, flows = [], []
    for s in states:
        added = events.into(events.boluses, s) + steady[s]
        rate = events.into(events.rates, s)
        jumps.append(_at_points(points, events, zero, added, zero))
        flows.append(_at_points(points, events, zero, rate, -rate).cumsum(-1))
    amounts = [torch.zeros_like(points.gaps[..., 0]) for _ in states]
    central = []
    for m in range(points.gaps.shape[-1]):
        after = []
        for i in states:
            terms = [x[..., m] * amounts[j] for (a, j), x in exponential.items() if a == i]
            if events.has_infusions and m:  # the inflow after the point before
                terms += [
                    x[..., m] * flows[j][..., m - 1] for (a, j), x in integral.items() if a == i
                ]
            left = functools.reduce(torch.add, terms)
            left = left if emptied is None else left * (1 - emptied[..., m])
            after.append(left + jumps[i][..., m])
        amounts = after
        central.append(amounts[system.central])
    amount = torch.stack(torch.broadcast_tensors(*central), -1)
    place = points.place.expand(*amount.shape[:-1], -1)
    return amount.gather(-1, place) / system.at("v", index)


def _resets(events: _DoseEvents) -> tuple[Tensor, Tensor, Tensor]:
    """One where the compartments are emptied: at resets, and where a steady state of kind 1 begins;
    for resets, doses and ends of infusions.
    """
    records, shape = events.records, events.begin.shape
    reset = (records.given & records.reset).to(events.begin.dtype).expand(shape)
    steady = (records.given & (records.steady_state == 1)).to(reset.dtype).expand(shape)
    return reset, steady, torch.zeros_like(reset)


def _at_points(
    points: _Points, events: _DoseEvents, reset: Tensor, begin: Tensor, end: Tensor
) -> Tensor:
    """What resets, doses and ends of infusions do, ``(*, individual, dose)`` each, at the points in
    their order; the other points do nothing.
    """
    lead = broadcast_shape(begin.shape[:-1], points.source.shape[:-1])
    table = torch.cat([x.expand(*lead, -1) for x in events.kinds(reset, begin, end)], -1)
    rest = points.source.shape[-1] - table.shape[-1]
    table = torch.cat([table, table.new_zeros(*lead, rest)], -1)
    return table.gather(-1, points.source.expand(*lead, -1))


def _steady_states(system: CompartmentSystem, events: _DoseEvents) -> list[Tensor]:
    r"""What the earlier doses of a steady state have left in each state when its last one begins,
    :math:`(I - e^{A \tau})^{-1}` times what one dose has left after an interval :math:`\tau`; zero
    for other doses.
    """
    records, states = events.records, range(system.num_states)
    is_steady = records.given & (records.steady_state > 0)
    if not bool(is_steady.any()):
        return [torch.zeros_like(events.begin) for _ in states]
    occasion = (events.begin.detach().unsqueeze(-1) >= events.changes.unsqueeze(-2)).sum(-1)
    interval = torch.where(is_steady, records.intervals, 1.0).expand_as(events.begin)
    rest = (interval - events.durations).clamp(min=0.0)
    whole, after = (_dense(system, system.transition(x, occasion)[0]) for x in (interval, rest))
    during = _dense(system, system.transition(events.durations, occasion)[1])
    boluses, rates = (
        torch.stack([events.into(x, s) for s in states], -1).unsqueeze(-1)
        for x in (events.boluses, events.rates)
    )
    once = whole @ boluses + after @ (during @ rates)
    identity = torch.eye(system.num_states, dtype=whole.dtype)
    left = torch.linalg.solve(identity - whole, once).squeeze(-1)
    return [torch.where(is_steady, left[..., s], 0.0) for s in states]


def _dense(system: CompartmentSystem, matrix: Matrix) -> Tensor:
    """A matrix of its entries, shape ``(*, individual, dose, state, state)``."""
    size = system.num_states
    zero = torch.zeros_like(matrix[system.central, system.central])
    cells = [matrix.get((i, j), zero) for i in range(size) for j in range(size)]
    return torch.stack(cells, -1).unflatten(-1, (size, size))
