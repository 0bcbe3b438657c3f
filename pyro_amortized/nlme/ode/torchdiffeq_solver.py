r"""The reference solver: torchdiffeq, differentiable, for any right-hand side in torch.

torchdiffeq knows one time grid and one step size for the whole batch. Here the events and
observations of each row are sorted into knots :math:`t_0 \le t_1 \le \dots`; between knot j and
j + 1 all rows advance together in rescaled time,

.. math:: \frac{dx}{ds} = (t_{j+1} - t_j)\, [f(t_j + s (t_{j+1} - t_j), x) + r_j], \qquad s \in [0,
    1],

with :math:`r_j` the rates of the infusions that are running; the state jumps at its knot.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from .compiled.scalar_source import OK, TOO_MANY_STEPS
from .events import ADD, ADD_STATE, PIECE, RATE, RESET, SET_STATE, Events

RightHandSide = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, eq=False)
class Rows:
    r"""Rows to solve, in torch.

    Args:
        start: Time of the initial states.
        initial: Shape ``(row, state)``.
        parameters: By name, shape ``(row, piece)``.
        events: Shape ``(row, event)``.
        vectors: States that events set or add, shape ``(row, vector, state)``.
        times: Observation times, shape ``(row, time)``.
    """

    start: float
    initial: Tensor
    parameters: dict[str, Tensor]
    events: Events
    vectors: Tensor
    times: Tensor


@dataclass(frozen=True)
class Tolerance:
    """Relative and absolute tolerance of every row, and its largest number of steps."""

    rtol: float
    atol: float
    max_steps: int


def solve_rows(f: RightHandSide, rows: Rows, tolerance: Tolerance) -> tuple[Tensor, Tensor]:
    r"""States at the observation times, and status.

    Returns:
        Shapes ``(row, time, state)`` and ``(row,)``.
    """
    num, num_events = rows.events.times.shape
    merged = torch.cat([rows.events.times, rows.times], 1)
    knots, order = merged.sort(dim=1, stable=True)
    last = rows.times[:, -1:]
    knots = torch.minimum(knots, last)  # nothing moves behind the last observation
    before = torch.full_like(knots[:, 0], rows.start)
    state, rates = rows.initial, torch.zeros_like(rows.initial)
    piece = torch.zeros(num, dtype=torch.long, device=state.device)
    path = []
    place = torch.arange(num, device=state.device)
    for j in range(knots.shape[1]):
        now = {n: x[place, piece] for n, x in rows.parameters.items()}
        state = _advance(f, state, before, knots[:, j] - before, rates, now, tolerance)
        before = knots[:, j]
        is_event = (order[:, j] < num_events) & (merged[place, order[:, j]] <= last[:, 0])
        if bool(is_event.any()):
            at = order[:, j].clamp(max=max(num_events - 1, 0))
            kind = torch.where(is_event, rows.events.kinds[place, at], 0)
            where, size = rows.events.places[place, at], rows.events.sizes[place, at]
            state, rates = _apply(rows, state, rates, kind, where, size)
            piece = torch.where(kind == PIECE, where, piece)
        path.append(state)
    position = order.argsort(1)[:, num_events:]
    found = torch.stack(path, 1).gather(1, position.unsqueeze(-1).expand(-1, -1, state.shape[-1]))
    failed = found.isnan().flatten(1).any(1)
    return found, torch.where(failed, TOO_MANY_STEPS, OK)


def _apply(
    rows: Rows, state: Tensor, rates: Tensor, kind: Tensor, where: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    num_states = state.shape[-1]
    into = torch.nn.functional.one_hot(where.clamp(max=num_states - 1), num_states).to(state.dtype)
    jump = into * size.unsqueeze(-1)
    nothing = torch.zeros_like(jump)

    def of(number: int) -> Tensor:
        return (kind == number).unsqueeze(-1)

    state = state + torch.where(of(ADD), jump, nothing)
    rates = rates + torch.where(of(RATE), jump, nothing)
    fresh = of(RESET) | of(SET_STATE)
    rates = torch.where(fresh, nothing, rates)
    state = torch.where(of(RESET), rows.initial, state)
    if rows.vectors.shape[1]:
        place = torch.arange(len(state), device=state.device)
        vector = rows.vectors[place, where.clamp(max=rows.vectors.shape[1] - 1)]
        state = torch.where(of(SET_STATE), vector, state)
        state = state + torch.where(of(ADD_STATE), vector, nothing)
    return state, rates


def _advance(
    f: RightHandSide,
    x: Tensor,
    begin: Tensor,
    length: Tensor,
    rate: Tensor,
    parameters: Mapping[str, Tensor],
    tolerance: Tolerance,
) -> Tensor:
    """Advance every row by its own length of time; rows that cannot be followed become NaN."""
    moving = ((length > 0) & x.isfinite().all(-1)).nonzero()[:, 0]
    if len(moving) == 0:
        return x
    part = {name: value[moving] for name, value in parameters.items()}
    end = _integrate(f, x[moving], begin[moving], length[moving], rate[moving], part, tolerance)
    return x.index_copy(0, moving, end)


def _integrate(
    f: RightHandSide,
    x: Tensor,
    begin: Tensor,
    length: Tensor,
    rate: Tensor,
    parameters: Mapping[str, Tensor],
    tolerance: Tolerance,
) -> Tensor:
    def rescaled(s: Tensor, y: Tensor) -> Tensor:
        return length.unsqueeze(-1) * (f(begin + s * length, y, parameters) + rate)

    def worst(y: Tensor) -> Tensor:
        # Detached: the steps are no function of the parameters, and a norm of zero has no gradient.
        return y.detach().reshape(len(x), -1).pow(2).mean(-1).sqrt().max()

    unit = torch.tensor([0.0, 1.0], dtype=x.dtype, device=x.device)
    options = {"norm": worst, "max_num_steps": tolerance.max_steps}
    try:
        end: Tensor = odeint(
            rescaled,
            x,
            unit,
            rtol=tolerance.rtol,
            atol=tolerance.atol,
            method="dopri5",
            options=options,
        )[-1]
    except AssertionError:  # torchdiffeq's sign for a step size of zero, NaN, or too many steps
        if len(x) == 1:
            return torch.full_like(x, torch.nan)
        parts = []
        for half in (slice(0, len(x) // 2), slice(len(x) // 2, None)):
            own = {name: value[half] for name, value in parameters.items()}
            parts.append(
                _integrate(f, x[half], begin[half], length[half], rate[half], own, tolerance)
            )
        return torch.cat(parts)
    return end
