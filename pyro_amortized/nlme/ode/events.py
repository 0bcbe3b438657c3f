r"""Doses as they arrive -> sorted events of every row: jumps, rates, resets, steady states."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ModelError
from ..dosing import Arrivals

ADD, RATE, RESET, SET_STATE, ADD_STATE, PIECE = range(1, 7)


@dataclass(frozen=True, eq=False)
class Events:
    r"""Events of every row, sorted by time; equal times keep the order of the records.

    Args:
        times: Shape ``(*, event)``; infinite in the padding.
        kinds: ADD an amount, add to a RATE, RESET, SET_STATE and ADD_STATE (steady states), PIECE
            (other parameters from here on); 0 in the padding.
        places: Compartment (0 first), number of the steady state, number of the piece.
        sizes: Amounts and rates.
    """

    times: Tensor
    kinds: Tensor
    places: Tensor
    sizes: Tensor

    def rows(self, shape: torch.Size, dtype: torch.dtype) -> "Events":
        """The same for every row of a batch, shape ``(row, event)``."""
        num = self.times.shape[-1]

        def flat(x: Tensor) -> Tensor:
            return x.expand(*shape, num).reshape(shape.numel(), num)

        times, sizes = flat(self.times.to(dtype)), flat(self.sizes.to(dtype))
        return Events(times, flat(self.kinds), flat(self.places), sizes)


class _Listed:
    """Events in the order of the records, before they are sorted."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, int, Tensor, Tensor, Tensor]] = []

    def add(self, when: Tensor, kind: int, place: Tensor, size: Tensor, where: Tensor) -> None:
        """Events of one kind, one per dose, where a mask says so."""
        if bool(where.any()):
            self.parts.append((when, kind, place, size, where))


def list_events(
    found: Arrivals | None, changes: Tensor | None, start: float, like: Tensor
) -> Events:
    r"""All events but observations.

    Args:
        found: Doses as they arrive.
        changes: Times from which the next piece of the parameters holds, ``(individual, change)``.
        start: Time of the initial state.
        like: A tensor of the dtype, shape ``(individual, time)``.

    Raises:
        ModelError: A dose lies before the start.
    """
    doses = _dose_events(found, start) if found is not None else []
    blank = like.new_zeros(len(like), 0)
    nothing = Events(blank, blank.long(), blank.long(), blank)
    parts = list(doses)
    if changes is not None:
        number = torch.arange(1, changes.shape[1] + 1, device=changes.device).expand_as(changes)
        kinds = torch.full_like(number, PIECE)
        parts.insert(0, Events(changes, kinds, number, torch.zeros_like(changes)))
    if not parts:
        return nothing
    shape = torch.broadcast_shapes(*(e.times.shape[:-1] for e in parts))

    def together(name: str) -> Tensor:
        columns = [getattr(e, name) for e in parts]
        return torch.cat([x.expand(*shape, x.shape[-1]) for x in columns], -1)

    times, kinds, places, sizes = (together(n) for n in ("times", "kinds", "places", "sizes"))
    times = torch.where(kinds > 0, times.to(sizes.dtype), torch.inf)
    times, order = times.sort(dim=-1, stable=True)
    ordered = Events(times, *(x.gather(-1, order) for x in (kinds, places, sizes)))
    used = int((ordered.kinds > 0).sum(-1).max()) if ordered.kinds.numel() else 0
    return Events(*(x[..., :used] for x in vars(ordered).values()))


def _dose_events(found: Arrivals, start: float) -> list[Events]:
    doses, given = found.doses, found.doses.given
    early = given & (doses.times < start - 1e-9 * max(1.0, abs(start)))
    if bool(early.any()):
        raise ModelError(
            f"Individual {int(early.any(1).nonzero()[0])} has a dose at time "
            f"{float(doses.times[early][0])}, before the start {start}.",
            "observations and doses at or after the time of the initial state.",
            "pass an earlier `start=`.",
        )
    listed = _Listed()
    steady, constant = doses.steady_state, found.is_constant
    number = torch.arange(doses.times.shape[1], device=given.device).expand_as(given)
    zero = torch.zeros_like(doses.amounts)
    listed.add(doses.times, RESET, number, zero, given & doses.reset & (steady != 1))
    listed.add(doses.times, SET_STATE, number, zero, given & (steady == 1))
    listed.add(doses.times, ADD_STATE, number, zero, given & (steady == 2))
    train = given & (steady > 0) & ~constant
    _arrive(listed, found, found.begin, given & ~constant)
    for earlier in range(1, _longest_train(found, train) + 1):
        _arrive(listed, found, found.begin - earlier * doses.intervals, train)
    if not listed.parts:
        return []
    shape = torch.broadcast_shapes(*(x.shape for p in listed.parts for x in (p[0], p[3], p[4])))
    stacked = []
    for when, kind, place, size, where in listed.parts:
        on = where.expand(shape)
        columns = (
            when.expand(shape),
            torch.where(on, kind, 0),
            place.expand(shape),
            size.expand(shape),
        )
        stacked.append(columns)
    # Dose by dose, so that equal times keep the order of the records.
    flat = [torch.stack(x, -1).flatten(-2) for x in zip(*stacked, strict=True)]
    return [Events(*flat)]


def _arrive(listed: _Listed, found: Arrivals, begin: Tensor, where: Tensor) -> None:
    """A bolus, or the start and the end of an infusion; what ran before its record starts there."""
    doses = found.doses
    into, record = doses.compartment - 1, doses.times
    infused = where & found.is_infusion
    end = begin + found.durations
    pending = (begin >= record) & (begin < found.until)
    listed.add(begin, ADD, into, found.amounts, where & ~found.is_infusion & pending)
    starts = torch.maximum(begin, record.to(begin.dtype))
    running = infused & (end > record) & (starts < found.until)
    listed.add(starts, RATE, into, found.rates, running)
    listed.add(end, RATE, into, -found.rates, running & (end < found.until))


def _longest_train(found: Arrivals, train: Tensor) -> int:
    if not bool(train.any()):
        return 0
    reach = torch.maximum(found.durations + 0 * found.lag, found.lag + 0 * found.durations)
    intervals = torch.where(train, found.doses.intervals, torch.ones_like(found.doses.intervals))
    ratio = torch.where(train, reach.detach() / intervals, torch.zeros_like(intervals))
    return int(torch.ceil(ratio.max()))
