r"""Linear compartments whose parameters change between occasions.

Within an occasion the amounts x follow :math:`\dot x = A x + r` with constant A, so that over a gap
:math:`\Delta` between doses, ends of infusions, changes of the occasion and observations

.. math:: x(t + \Delta) = e^{A \Delta} x(t) + \Big(\int_0^\Delta e^{A s}\, \mathrm ds\Big)\, r .

What an earlier occasion has left is carried over with the parameters of the new one, as in the ODE.
The exponential of one compartment is closed; that of more compartments is ``torch.matrix_exp``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...cohort import Doses
from ...errors import ModelError
from ..dosing import Delivery, arrivals
from ..interoccasion_variability import Occasions
from ..quantities import Quantity, as_quantity

SMALL = 1e-8  # below it (1 - exp(-x)) / x is 1 - x / 2 to the precision of double numbers


@dataclass(frozen=True, eq=False)
class _Points:
    r"""All times at which something happens, in order, shape ``(individual, point)``.

    Args:
        gaps: Time since the point before; 0 at the first one.
        occasion: Occasion of the gap before the point.
        source: Number of the event among doses, ends of infusions, changes and observations.
    """

    gaps: Tensor
    occasion: Tensor
    source: Tensor


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
    num = len(times)
    own = {n: _each(n, x, times, num, occasions.number) for n, x in parameters.items()}
    ka = None if absorption is None else _each("ka", absorption, times, num, occasions.number)
    arriving = arrivals(doses, delivery)
    _check_steady_states(doses, arriving.lag)
    system = _System(own, ka)
    given = doses.given & (arriving.begin < arriving.until)
    begin = torch.where(given, arriving.begin, doses.times)
    amounts = torch.where(given, arriving.amounts, 0.0).expand_as(begin)
    infused = (arriving.durations > 0).expand_as(begin) & given
    ends = torch.minimum(begin + arriving.durations, arriving.until).expand_as(begin)
    ends = torch.where(infused, ends, begin)
    rates = torch.where(infused, arriving.rates.expand_as(begin), 0.0)
    # Resets act at the time of their record, before the dose that they come with.
    resets = torch.where(doses.given & doses.reset, doses.times, torch.inf).expand_as(begin)
    changes = occasions.changes.to(times.dtype)
    every = [resets, begin, ends, changes, times]
    points = _points(every, changes)
    columns = _Doses(begin, amounts, infused, rates, doses, system.num_states)
    return _carried(points, every, system, columns, occasions)


def _each(name: str, value: Quantity, times: Tensor, num: int, number: int) -> Tensor:
    """A parameter with its value on each occasion, shape ``(individual, occasion)``."""
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
    return x.expand(number, num).mT


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
class _Doses:
    """What happens at each dose, shape ``(individual, dose)`` each."""

    begin: Tensor
    amounts: Tensor
    infused: Tensor
    rates: Tensor
    records: Doses
    num_states: int

    def into(self, values: Tensor, column: int) -> Tensor:
        """Values of one dose as a vector of the states, shape ``(individual, state)``."""
        place = (self.records.compartment[:, column] - 1).clamp(0, self.num_states - 1)
        unit = torch.nn.functional.one_hot(place.long(), self.num_states)
        return values[..., column].unsqueeze(-1) * unit


class _System:
    """The compartments of every individual on every occasion.

    Args:
        parameters: Shape ``(individual, occasion)`` each.
        ka: Absorption rate, likewise, or None.
    """

    def __init__(self, parameters: dict[str, Tensor], ka: Tensor | None) -> None:
        self.parameters, self.ka = parameters, ka
        self.central = 0 if ka is None else 1
        self.num_peripheral = (len(parameters) - 2) // 2
        self.num_states = self.central + 1 + self.num_peripheral

    def at(self, name: str, occasion: Tensor) -> Tensor:
        """A parameter on the occasions of an index ``(individual, point)``."""
        return self.parameters[name].gather(1, occasion)

    def transition(self, gaps: Tensor, occasion: Tensor) -> tuple[Tensor, Tensor]:
        """The exponential and its integral over gaps ``(individual, point)``, shape ``(individual,
        point, state, state)`` each.
        """
        if self.num_peripheral:
            return self._by_matrix(gaps, occasion)
        k = self.at("cl", occasion) / self.at("v", occasion)
        stays = torch.exp(-k * gaps)
        filled = -torch.expm1(-k * gaps) / k
        if self.ka is None:
            return stays[..., None, None], filled[..., None, None]
        ka = self.ka.gather(1, occasion)
        waits = torch.exp(-ka * gaps)
        slow, difference = torch.minimum(ka, k), (ka - k).abs()
        passed = ka * gaps * torch.exp(-slow * gaps) * _share(difference * gaps)
        zero = torch.zeros_like(stays)
        exponential = torch.stack([waits, zero, passed, stays], -1)
        depot = -torch.expm1(-ka * gaps) / ka
        absorbed = (1 - waits - passed) / k
        integral = torch.stack([depot, zero, absorbed, filled], -1)
        return exponential.unflatten(-1, (2, 2)), integral.unflatten(-1, (2, 2))

    def _by_matrix(self, gaps: Tensor, occasion: Tensor) -> tuple[Tensor, Tensor]:
        size, c = self.num_states, self.central
        v = self.at("v", occasion)
        entries = {(c, c): -self.at("cl", occasion) / v}
        for j, (q, volume) in enumerate((("q", "v2"), ("q3", "v3"))[: self.num_peripheral]):
            out, back = self.at(q, occasion) / v, self.at(q, occasion) / self.at(volume, occasion)
            place = c + 1 + j
            entries[c, c] = entries[c, c] - out
            entries[place, c], entries[c, place], entries[place, place] = out, back, -back
        if self.ka is not None:
            ka = self.ka.gather(1, occasion)
            entries[0, 0], entries[c, 0] = -ka, ka
        zero, one = torch.zeros_like(gaps), torch.ones_like(gaps)
        # The exponential of the matrix with a block of ones beside it holds the integral.
        for j in range(size):
            entries[j, size + j] = one
        cells = [entries.get((i, j), zero) for i in range(2 * size) for j in range(2 * size)]
        matrix = torch.stack(cells, -1).unflatten(-1, (2 * size, 2 * size))
        both = torch.matrix_exp(matrix * gaps[..., None, None])
        return both[..., :size, :size], both[..., :size, size:]


def _share(x: Tensor) -> Tensor:
    """(1 - exp(-x)) / x, also at zero."""
    safe = torch.where(x < SMALL, torch.ones_like(x), x)
    return torch.where(x < SMALL, 1 - x / 2, -torch.expm1(-safe) / safe)


def _points(every: list[Tensor], changes: Tensor) -> _Points:
    """The events in the order of time; of equal times in the order of the list, so that an
    observation sees the dose at its time.
    """
    together = torch.cat(every, -1)
    # Events that do not happen (infinite times) come last and change nothing.
    known = together.isfinite()
    latest = torch.where(known, together, -torch.inf).amax(-1, keepdim=True)
    times = torch.where(known, together, latest)
    source = times.detach().argsort(dim=-1, stable=True)
    ordered = times.gather(-1, source)
    gaps = torch.cat([torch.zeros_like(ordered[:, :1]), ordered.diff(dim=-1)], -1)
    before = torch.cat([ordered[:, :1], ordered[:, :-1]], -1)
    occasion = (before.unsqueeze(-1) >= changes.unsqueeze(1)).sum(-1)
    return _Points(gaps, occasion, source)


def _carried(
    points: _Points, every: list[Tensor], system: _System, doses: _Doses, occasions: Occasions
) -> Tensor:
    """The concentrations at the observation times, carried from point to point."""
    exponential, integral = system.transition(points.gaps, points.occasion)
    num_doses, num_changes = doses.begin.shape[-1], every[3].shape[-1]
    first_time = 3 * num_doses + num_changes
    state = points.gaps.new_zeros(len(points.gaps), system.num_states)
    inflow, states = state, []
    resets, jumps, flows = _tables(every, system, doses, occasions)
    for m in range(points.gaps.shape[1]):
        step = exponential[:, m] @ state.unsqueeze(-1) + integral[:, m] @ inflow.unsqueeze(-1)
        state, source = step.squeeze(-1), points.source[:, m]
        rows = torch.arange(len(source))
        place = source.clamp(max=first_time)
        state = torch.where(resets[rows, place].unsqueeze(-1), 0.0, state) + jumps[rows, place]
        inflow = inflow + flows[rows, place]
        states.append(state[:, system.central])
    amount = torch.stack(states, -1)
    back = torch.empty_like(points.source).scatter(
        -1, points.source, torch.arange(amount.shape[1]).expand(amount.shape)
    )
    central = amount.gather(-1, back[:, first_time:])
    return central / system.at("v", occasions.index)


def _tables(
    every: list[Tensor], system: _System, doses: _Doses, occasions: Occasions
) -> tuple[Tensor, Tensor, Tensor]:
    """What each event does: whether it empties the compartments, what it adds, and how it changes
    the inflow; the last column is an observation, which does nothing.
    """
    num, num_doses = doses.begin.shape
    num_changes = every[3].shape[-1]
    width = 3 * num_doses + num_changes + 1
    is_reset = torch.zeros(num, width, dtype=torch.bool)
    is_reset[:, :num_doses] = every[0].isfinite()
    steady = doses.records.given & (doses.records.steady_state == 1)
    is_reset[:, num_doses : 2 * num_doses] = steady
    zero = doses.begin.new_zeros(num, system.num_states)
    jumps, flows = [zero] * num_doses, [zero] * num_doses
    for d in range(num_doses):
        bolus = torch.where(doses.infused, 0.0, doses.amounts)
        jumps.append(doses.into(bolus, d) + _steady_state(d, system, doses, occasions))
        flows.append(doses.into(doses.rates, d))
    for d in range(num_doses):
        jumps.append(zero)
        flows.append(-doses.into(doses.rates, d))
    jumps += [zero] * (num_changes + 1)
    flows += [zero] * (num_changes + 1)
    return is_reset, torch.stack(jumps, 1), torch.stack(flows, 1)


def _steady_state(column: int, system: _System, doses: _Doses, occasions: Occasions) -> Tensor:
    r"""What the earlier doses of a steady state have left when its last one begins,
    :math:`(I - e^{A \tau})^{-1}` times what one dose has left after an interval :math:`\tau`; zero
    for other doses.
    """
    records = doses.records
    is_steady = (records.given & (records.steady_state > 0))[:, column]
    if not bool(is_steady.any()):
        return doses.begin.new_zeros(len(doses.begin), system.num_states)
    begin = doses.begin[:, column : column + 1]
    occasion = (begin >= occasions.changes.to(begin.dtype)).sum(-1, keepdim=True)
    interval = torch.where(is_steady, records.intervals[:, column], 1.0).unsqueeze(-1)
    durations = torch.where(
        doses.rates[:, column] > 0,
        doses.amounts[:, column] / doses.rates[:, column].clamp(min=1e-300),
        0.0,
    ).unsqueeze(-1)
    whole = system.transition(interval, occasion)[0][:, 0]
    after = system.transition((interval - durations).clamp(min=0.0), occasion)[0][:, 0]
    during = system.transition(durations, occasion)[1][:, 0]
    bolus = torch.where(doses.infused, 0.0, doses.amounts)
    once = whole @ doses.into(bolus, column).unsqueeze(-1)
    once = once + after @ (during @ doses.into(doses.rates, column).unsqueeze(-1))
    identity = torch.eye(system.num_states, dtype=whole.dtype)
    left = torch.linalg.solve(identity - whole, once).squeeze(-1)
    return torch.where(is_steady.unsqueeze(-1), left, 0.0)
