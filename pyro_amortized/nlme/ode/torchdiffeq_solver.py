r"""The differentiable solver, torchdiffeq, for any right-hand side in torch.

torchdiffeq has one time grid and one step size for the whole batch. The events and observations of
each row are therefore sorted into knots :math:`t_0 \le t_1 \le \dots`, and between the knots j
and j + 1 all rows are solved together in rescaled time,

.. math:: \frac{dx}{ds} = (t_{j+1} - t_j)\, [f(t_j + s (t_{j+1} - t_j), x) + r_j], \qquad s \in [0,
    1],

with the rates :math:`r_j` of the running infusions. The state jumps at the knots.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .compiled.codes import Event, SolverStatus
from .compiled.tracing import RightHandSide
from .events import Events
from .solver_options import Tolerance


@dataclass(frozen=True, eq=False)
class SolverRows:
    r"""Rows to solve, as tensors.

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


def solve_rows(f: RightHandSide, rows: SolverRows, tolerance: Tolerance) -> tuple[Tensor, Tensor]:
    r"""States at the observation times, and status.

    Returns:
        Shapes ``(row, time, state)`` and ``(row,)``.
    """
    num, num_events = rows.events.times.shape
    merged = torch.cat([rows.events.times, rows.times], 1)
    knots, order = merged.sort(dim=1, stable=True)
    last = rows.times[:, -1:]
    knots = torch.minimum(knots, last)  # nothing changes after the last observation
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
            piece = torch.where(kind == Event.NEXT_PIECE, where, piece)
        path.append(state)
    position = order.argsort(1)[:, num_events:]
    states = torch.stack(path, 1).gather(1, position.unsqueeze(-1).expand(-1, -1, state.shape[-1]))
    failed = states.isnan().flatten(1).any(1)
    return states, torch.where(failed, int(SolverStatus.TOO_MANY_STEPS), int(SolverStatus.SOLVED))


def _apply(
    rows: SolverRows, state: Tensor, rates: Tensor, kind: Tensor, where: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    num_states = state.shape[-1]
    into = torch.nn.functional.one_hot(where.clamp(max=num_states - 1), num_states).to(state.dtype)
    jump = into * size.unsqueeze(-1)
    nothing = torch.zeros_like(jump)

    def is_kind(event: Event) -> Tensor:
        return (kind == event).unsqueeze(-1)

    state = state + torch.where(is_kind(Event.ADD_AMOUNT), jump, nothing)
    rates = rates + torch.where(is_kind(Event.ADD_RATE), jump, nothing)
    restarts = is_kind(Event.RESET) | is_kind(Event.SET_STATE)
    rates = torch.where(restarts, nothing, rates)
    state = torch.where(is_kind(Event.RESET), rows.initial, state)
    if rows.vectors.shape[1]:
        place = torch.arange(len(state), device=state.device)
        vector = rows.vectors[place, where.clamp(max=rows.vectors.shape[1] - 1)]
        state = torch.where(is_kind(Event.SET_STATE), vector, state)
        state = state + torch.where(is_kind(Event.ADD_STATE), vector, nothing)
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
    """Solve every row over its own length of time; rows that cannot be solved become NaN."""
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
    from torchdiffeq import odeint  # it imports scipy.integrate, half a second

    def rescaled(s: Tensor, y: Tensor) -> Tensor:
        return length.unsqueeze(-1) * (f(begin + s * length, y, parameters) + rate)

    def worst(y: Tensor) -> Tensor:
        # Detached, because the steps do not depend on the parameters and the gradient of a norm
        # of zero is not finite.
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
    except AssertionError:  # raised by torchdiffeq for a step size of zero, NaN, or too many steps
        if len(x) == 1:
            return torch.full_like(x, torch.nan)
        return _integrate_halves(f, x, begin, length, rate, parameters, tolerance)
    return end


def _integrate_halves(
    f: RightHandSide,
    x: Tensor,
    begin: Tensor,
    length: Tensor,
    rate: Tensor,
    parameters: Mapping[str, Tensor],
    tolerance: Tolerance,
) -> Tensor:
    """Solve the two halves of the rows apart, so that in the end the rows that cannot be solved are
    alone.
    """
    parts = []
    for half in (slice(0, len(x) // 2), slice(len(x) // 2, None)):
        own = {name: value[half] for name, value in parameters.items()}
        parts.append(_integrate(f, x[half], begin[half], length[half], rate[half], own, tolerance))
    return torch.cat(parts)
