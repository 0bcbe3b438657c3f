r"""Events of every row, sorted by time: jumps, infusion rates, resets, steady states, new
parameters.

They are made from the doses as they arrive, that is, after lag time and bioavailability.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ModelError
from ...numerics.broadcasting import broadcast_shape
from ..dosing import Arrivals
from .compiled.codes import Event

# A time that is earlier than the start by less than this, relative to the start, is at the start:
# clock times and differences of times are rounded.
ROUNDING = 1e-9
# Distance of the stops of the solver from a switch, in rounding errors of its time.
BESIDE = 8.0


def is_before(times: Tensor, start: float) -> Tensor:
    """Which times are before the time of the initial state, by more than rounding."""
    return times < start - ROUNDING * max(1.0, abs(start))


@dataclass(frozen=True, eq=False)
class Events:
    r"""Events of every row, sorted by time; events at equal times keep the order of the records.

    Args:
        times: Shape ``(*, event)``; infinite in the padding.
        kinds: Values of :class:`~pyro_amortized.nlme.ode.compiled.codes.Event`; 0 in the padding.
        places: Index of the compartment, of the steady state or of the piece.
        sizes: Amounts and rates.
    """

    times: Tensor
    kinds: Tensor
    places: Tensor
    sizes: Tensor

    def rows(self, shape: torch.Size, dtype: torch.dtype) -> "Events":
        """The events of every row of a batch, shape ``(row, event)``."""
        num = self.times.shape[-1]

        def flat(x: Tensor) -> Tensor:
            return x.expand(*shape, num).reshape(shape.numel(), num)

        times, sizes = flat(self.times.to(dtype)), flat(self.sizes.to(dtype))
        return Events(times, flat(self.kinds), flat(self.places), sizes)


class _EventList:
    """Events in the order of the records, before they are sorted."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, int, Tensor, Tensor, Tensor]] = []

    def add(self, when: Tensor, kind: int, place: Tensor, size: Tensor, where: Tensor) -> None:
        """Add events of one kind, one for each dose of a mask."""
        if bool(where.any()):
            self.parts.append((when, kind, place, size, where))


def switch_events(switches: Tensor, start: float) -> Events:
    r"""Stops of the solver around the times at which the right-hand side changes.

    There is a stop just before and one just after each time, so that no step sees both sides,
    whether the right-hand side compares with ``>`` or ``>=``.

    Args:
        switches: Shape ``(individual, switch)``; times before the start, and infinite ones, have no
            effect.
        start: Time of the initial state.
    """
    rounding = torch.finfo(switches.dtype).eps * switches.abs().clamp(min=1.0)
    used = (switches > start) & switches.isfinite()
    sides = [switches - BESIDE * rounding, switches + BESIDE * rounding]
    times = torch.cat([torch.where(used, x, torch.inf) for x in sides], -1)
    kinds = torch.where(times.isfinite(), int(Event.ADD_AMOUNT), 0)
    return Events(times, kinds, torch.zeros_like(kinds), torch.zeros_like(times))


def list_events(
    arriving: Arrivals | None,
    changes: Tensor | None,
    start: float,
    like: Tensor,
    switches: Tensor | None = None,
) -> Events:
    r"""All events except observations.

    Args:
        arriving: Doses as they arrive.
        changes: Times at which the next piece of the parameters starts, ``(individual, change)``.
        start: Time of the initial state.
        like: A tensor of the dtype, shape ``(individual, time)``.
        switches: Times at which the right-hand side changes, ``(individual, switch)``.

    Raises:
        ModelError: A dose is before the start.
    """
    doses = _dose_events(arriving, start) if arriving is not None else []
    blank = like.new_zeros(len(like), 0)
    nothing = Events(blank, blank.long(), blank.long(), blank)
    parts = list(doses)
    if changes is not None:
        number = torch.arange(1, changes.shape[1] + 1, device=changes.device).expand_as(changes)
        kinds = torch.full_like(number, Event.NEXT_PIECE)
        parts.insert(0, Events(changes, kinds, number, torch.zeros_like(changes)))
    if switches is not None:
        parts.append(switch_events(switches.to(like.dtype), start))
    return _sorted(parts) if parts else nothing


def with_switches(events: Events, switches: Tensor, start: float) -> Events:
    """The events of rows, and the stops around the times ``(row, switch)`` at which the right-hand
    side changes.
    """
    return _sorted([events, switch_events(switches.to(events.times.dtype), start)])


def _sorted(parts: list[Events]) -> Events:
    """The events of all parts by time; at equal times in the order of the parts."""
    shape = broadcast_shape(*(e.times.shape[:-1] for e in parts))

    def concatenated(name: str) -> Tensor:
        columns = [getattr(e, name) for e in parts]
        return torch.cat([x.expand(*shape, x.shape[-1]) for x in columns], -1)

    times, kinds, places, sizes = (concatenated(n) for n in ("times", "kinds", "places", "sizes"))
    times = torch.where(kinds > 0, times.to(sizes.dtype), torch.inf)
    times, order = times.sort(dim=-1, stable=True)
    ordered = Events(times, *(x.gather(-1, order) for x in (kinds, places, sizes)))
    used = int((ordered.kinds > 0).sum(-1).max()) if ordered.kinds.numel() else 0
    return Events(*(x[..., :used] for x in vars(ordered).values()))


def _dose_events(arriving: Arrivals, start: float) -> list[Events]:
    doses, given = arriving.doses, arriving.doses.given
    early = given & is_before(doses.times, start)
    if bool(early.any()):
        raise ModelError(
            f"Individual {int(early.any(1).nonzero()[0])} has a dose at time "
            f"{float(doses.times[early][0])}, before the start {start}.",
            "observations and doses at or after the time of the initial state.",
            "pass an earlier `start=`.",
        )
    listed = _EventList()
    steady, constant = doses.steady_state, arriving.is_constant
    number = torch.arange(doses.times.shape[1], device=given.device).expand_as(given)
    zero = torch.zeros_like(doses.amounts)
    listed.add(doses.times, Event.RESET, number, zero, given & doses.reset & (steady != 1))
    listed.add(doses.times, Event.SET_STATE, number, zero, given & (steady == 1))
    listed.add(doses.times, Event.ADD_STATE, number, zero, given & (steady == 2))
    train = given & (steady > 0) & ~constant
    _arrive(listed, arriving, arriving.begin, given & ~constant)
    for earlier in range(1, _longest_train(arriving, train) + 1):
        _arrive(listed, arriving, arriving.begin - earlier * doses.intervals, train)
    if not listed.parts:
        return []
    shape = broadcast_shape(*(x.shape for p in listed.parts for x in (p[0], p[3], p[4])))
    stacked = []
    for when, kind, place, size, where in listed.parts:
        on = where.expand(shape)
        columns = (
            when.expand(shape),
            torch.where(on, int(kind), 0),
            place.expand(shape),
            size.expand(shape),
        )
        stacked.append(columns)
    # Ordered by dose, so that events at equal times keep the order of the records.
    flat = [torch.stack(x, -1).flatten(-2) for x in zip(*stacked, strict=True)]
    return [Events(*flat)]


def _arrive(listed: _EventList, arriving: Arrivals, begin: Tensor, where: Tensor) -> None:
    """Add a bolus, or the start and end of an infusion.

    An infusion of a steady state that started before its record starts at the record.
    """
    doses = arriving.doses
    into, record = doses.compartment - 1, doses.times
    infused = where & arriving.is_infusion
    end = begin + arriving.durations
    pending = (begin >= record) & (begin < arriving.until)
    listed.add(
        begin, Event.ADD_AMOUNT, into, arriving.amounts, where & ~arriving.is_infusion & pending
    )
    starts = torch.maximum(begin, record.to(begin.dtype))
    running = infused & (end > record) & (starts < arriving.until)
    listed.add(starts, Event.ADD_RATE, into, arriving.rates, running)
    listed.add(end, Event.ADD_RATE, into, -arriving.rates, running & (end < arriving.until))


def _longest_train(arriving: Arrivals, train: Tensor) -> int:
    if not bool(train.any()):
        return 0
    reach = torch.maximum(
        arriving.durations + 0 * arriving.lag, arriving.lag + 0 * arriving.durations
    )
    intervals = torch.where(
        train, arriving.doses.intervals, torch.ones_like(arriving.doses.intervals)
    )
    ratio = torch.where(train, reach.detach() / intervals, torch.zeros_like(intervals))
    return int(torch.ceil(ratio.max()))
