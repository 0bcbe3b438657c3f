r"""Steady states of any dynamics, as the fixed point of one dosing interval.

The state x at the record of a steady-state dose satisfies x = P(x), where P is the map over one
interval II with the periodic doses. Newton's method solves this equation, in one step for linear
dynamics. The gradient follows from the implicit function theorem.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...numerics.broadcasting import broadcast_shape
from ..dosing import Arrivals
from .compiled.codes import Event
from .events import Events

PeriodMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FixedPointSettings:
    r"""How Newton's method is run.

    Args:
        max_iterations: Newton's method converges in fewer than ten, or not at all.
        step: Step of the finite differences, as a share of a state: far above the error of the
            solution over one interval, far below what is nonlinear.
        smallest_state: Size that a state has at least in this share, relative to the largest state
            of the row, since an empty state would have no step.
        min_scale: Size that the largest state has at least, where all are zero.
        num_errors: Change of the states, in relative tolerances of the solver, below which the
            fixed point is found: the change contains the error of two solutions.
        precision: The interval is solved with a relative tolerance that is smaller by this factor,
            since finite differences and the inverse of I - P' enlarge its error.
    """

    max_iterations: int = 25
    step: float = 1e-4
    smallest_state: float = 1e-2
    min_scale: float = 1e-12
    num_errors: float = 100.0
    precision: float = 10.0


FIXED_POINT = FixedPointSettings()


def period_events(arriving: Arrivals, column: int, length: Tensor) -> Events:
    r"""Events of one interval before the record of a steady-state dose.

    Args:
        arriving: Doses as they arrive.
        column: Number of the dose.
        length: Length of the interval, shape ``(individual,)``; any length for a constant infusion.

    Returns:
        Events, with times since the start of the interval, shape ``(*, individual, 4)``.
    """

    def of(x: Tensor) -> Tensor:
        return x[..., min(column, x.shape[-1] - 1)]

    doses = arriving.doses
    rate, amount, duration = of(arriving.rates), of(arriving.amounts), of(arriving.durations)
    constant, infused = of(arriving.is_constant), of(arriving.is_infusion)
    into = of(doses.compartment) - 1
    phase = torch.remainder(of(arriving.lag), length)
    periods = torch.ceil((phase + duration) / length)
    end = phase + duration - length * (periods - 1)
    nothing = torch.zeros_like(rate + phase)
    base = torch.where(constant, rate, rate * (periods - 1)) + nothing
    train = infused & ~constant
    columns = [
        (nothing, Event.ADD_RATE, base, infused),
        (phase, Event.ADD_RATE, rate, train),
        (end, Event.ADD_RATE, -rate, train),
        (phase, Event.ADD_AMOUNT, amount, ~infused),
    ]
    shape = broadcast_shape(*(x.shape for c in columns for x in (c[0], c[2], c[3])))
    times = [torch.where(on, when, torch.inf).expand(shape) for when, _, _, on in columns]
    kinds = [torch.where(on, int(kind), 0).expand(shape) for _, kind, _, on in columns]
    sizes = [size.expand(shape) for _, _, size, _ in columns]
    time, order = torch.stack(times, -1).sort(dim=-1, stable=True)
    place = into.unsqueeze(-1).expand_as(time)
    kind, size = (torch.stack(x, -1).gather(-1, order) for x in (kinds, sizes))
    return Events(time, kind, place, size)


def fixed_point(period: PeriodMap, first: Tensor, rtol: float) -> tuple[Tensor, Tensor]:
    r"""Solve x = P(x) for every row, by Newton's method with finite differences.

    The result has no gradient.

    Args:
        period: The map P of states ``(copy * row, state)``; all rows are repeated once per copy.
        first: First guess, shape ``(row, state)``.
        rtol: Relative tolerance.

    Returns:
        The fixed points, and whether they were found, shape ``(row,)``.
    """
    num, num_states = first.shape
    settings = FIXED_POINT
    with torch.no_grad():
        x = period(period(first))
        converged = torch.zeros(num, dtype=torch.bool, device=x.device)
        for _ in range(settings.max_iterations):
            scale = x.abs().amax(-1, keepdim=True).clamp(min=settings.min_scale)
            step = settings.step * torch.maximum(x.abs(), settings.smallest_state * scale)
            moved = x + torch.diag_embed(step).movedim(1, 0)
            ends = period(torch.cat([x.unsqueeze(0), moved]).flatten(0, 1))
            end, others = ends.view(num_states + 1, num, num_states).split([1, num_states])
            jacobian = ((others - end) / step.T.unsqueeze(-1)).permute(1, 2, 0)
            change = _solve(jacobian, end[0] - x)
            usable = change.isfinite().all(-1) & ~converged
            new = torch.where(usable.unsqueeze(-1), x + change, end[0])
            new = torch.where(converged.unsqueeze(-1), x, new)
            is_near = ((new - x).abs() <= settings.num_errors * rtol * scale).all(-1)
            converged = converged | is_near & usable
            x = new
            if bool((converged | ~x.isfinite().all(-1)).all()):
                break
    return x, converged


def with_gradient(period: PeriodMap, point: Tensor) -> Tensor:
    """The fixed point with the gradient that the implicit function theorem gives."""
    x = point.detach().requires_grad_()
    with torch.enable_grad():
        end = period(x)
        rows = [
            torch.autograd.grad(end[:, s].sum(), x, retain_graph=True)[0]
            for s in range(x.shape[-1])
        ]
        jacobian = torch.stack(rows, 1).detach()
        end_of_period = period(point.detach())
    return point.detach() + _solve(jacobian, end_of_period - point.detach())


def _solve(jacobian: Tensor, gap: Tensor) -> Tensor:
    unit = torch.eye(gap.shape[-1], dtype=gap.dtype, device=gap.device)
    matrix = (unit - jacobian).nan_to_num(0.0)
    solution, _ = torch.linalg.solve_ex(matrix, gap.unsqueeze(-1))
    return solution[..., 0]
