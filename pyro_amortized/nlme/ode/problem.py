r"""One call of the solver: the inputs as rows of one batch, and the solution in their shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...cohort import Doses
from ...cohort.copies import repeated_rows
from ...errors import ModelError
from ...numerics.broadcasting import broadcast_shape
from ...runtime.isolation import torch_threads
from ...runtime.threads import threads_of_caller
from ..dosing import Delivery, arrivals
from ..quantities import Quantity, as_quantity
from .compiled.codes import Event, SolverStatus
from .compiled.function_keys import key_of
from .compiled.solved_rows import Problem, run
from .compiled.systems import System, system_for
from .compiled.time_switches import switch_times
from .compiled.tracing import RightHandSide
from .events import Events, list_events, with_switches
from .problem_validation import as_switches, check_inputs, check_kinds
from .solver_options import SolverOptions, Tolerance
from .steady_state import FIXED_POINT, fixed_point, period_events, with_gradient
from .torchdiffeq_solver import SolverRows, solve_rows

REASONS = {
    SolverStatus.SOLVED: "solved",
    SolverStatus.TOO_MANY_STEPS: "too many steps",
    SolverStatus.NOT_FINITE: "not finite",
    SolverStatus.STEP_TOO_SMALL: "step too small",
    SolverStatus.NO_STEADY_STATE: "no steady state",
    SolverStatus.STIFF: "stiff",
}
NO_TIMES = 1.0  # length of the interval of a constant infusion where all times are equal


@dataclass(frozen=True, eq=False)
class Piecewise:
    r"""Parameters of the dynamics that change at given times, for instance with a covariate.

    Args:
        changes: Times at which the next piece starts, shape ``(individual, piece - 1)``, sorted.
        parameters: By name, shape ``(*, individual, piece)``.
    """

    changes: Tensor
    parameters: Mapping[str, Tensor]


class Solution(NamedTuple):
    r"""States, and the status of each individual.

    Args:
        states: Shape ``(*, individual, time, state)``; NaN for individuals that failed.
        status: Shape ``(*, individual)``; the keys of ``REASONS``, 0 for a solved individual.
        solver: "compiled" or "torchdiffeq".
    """

    states: Tensor
    status: Tensor
    solver: str

    @property
    def failed(self) -> Tensor:
        """True for individuals without a solution."""
        return self.status != SolverStatus.SOLVED


@dataclass(eq=False)
class Task:
    """One call of :func:`integrate`."""

    f: RightHandSide
    control: SolverOptions
    start: float
    batch: torch.Size = field(init=False)
    parameters: dict[str, Tensor] = field(init=False)
    inputs: list[Tensor] = field(init=False)
    key: Any = field(init=False)
    needs_gradient: bool = field(init=False)
    finds_switches: bool = field(init=False)

    def prepare(
        self,
        initial: Tensor,
        times: Tensor,
        given: Mapping[str, Quantity],
        doses: Doses | None,
        delivery: Delivery | None,
        piecewise: Piecewise | None,
        switches: Any = None,
    ) -> None:
        """Check the inputs, and bring them into one shape."""
        start, self.key, self.finds_switches = self.start, key_of(self.f), switches is None
        check_kinds(initial, times, given)
        num = len(times)
        parameters = {
            n: as_quantity(f"parameters[{n!r}]", x, initial, num) for n, x in given.items()
        }
        self.arriving = arrivals(doses, delivery) if doses is not None else None
        changes = piecewise.changes if piecewise is not None else None
        self.pieces = changes.shape[1] + 1 if changes is not None else 1
        varying = dict(piecewise.parameters) if piecewise is not None else {}
        check_inputs(initial, times, parameters, varying, start, doses)
        shapes = [x.shape for x in parameters.values()] + [x.shape[:-1] for x in varying.values()]
        hit = as_switches(switches, times)
        self._events = list_events(self.arriving, changes, start, times, hit)
        shapes += [initial.shape[:-1], times.shape[:1], self._events.times.shape[:-1]]
        self.batch = broadcast_shape(*shapes)
        fixed = [*parameters.values(), *varying.values(), initial, times]
        fixed += [self._events.times, self._events.sizes]
        self.dtype = _common_dtype(fixed)
        self.num_states = initial.shape[-1]
        self.initial, self.times = initial, times
        self.parameters = {n: x.unsqueeze(-1) for n, x in parameters.items()} | varying
        self.inputs = [*self.parameters.values(), initial, times, *vars(self._events).values()]
        if self.arriving is not None and bool((self.arriving.doses.steady_state > 0).any()):
            doses_in = self.arriving
            self.inputs += [doses_in.lag, doses_in.durations, doses_in.amounts]
            self.inputs += [*doses_in.doses.columns.values()]
        self.needs_gradient = torch.is_grad_enabled() and (
            any(x.requires_grad for x in self.inputs) or self._captures_gradient()
        )

    def _captures_gradient(self) -> bool:
        """Whether the right-hand side itself refers to a tensor that needs a gradient."""
        if self.key is not None:
            return False
        x = self.initial.detach().to(self.dtype).reshape(-1, self.num_states)[:1]
        one = {n: v.detach().to(self.dtype).reshape(-1)[:1] for n, v in self.parameters.items()}
        slope = self.f(torch.full_like(x[:, 0], self.start), x, one)
        return isinstance(slope, Tensor) and slope.requires_grad

    def solution(self) -> Solution:
        """Solve."""
        solver = self.control.solver
        rows = self.rows()
        system = self.system(rows) if solver != "torchdiffeq" else None
        if system is not None and self.finds_switches and system.time_differences:
            times = switch_times(system.time_differences, rows.parameters, rows.initial[:, :1])
            rows = replace(rows, events=with_switches(rows.events, times, self.start))
        method = solver if solver in ("explicit", "implicit") else "auto"
        vectors, lost = self.steady_states(rows, system, method)
        rows = replace(rows, vectors=vectors)
        if system is None:
            states, status = solve_rows(self.f, rows, self.control.tolerance)
        else:
            states, status = _compiled(system, rows, method, self.control.tolerance)
        status = torch.where(
            lost & (status != SolverStatus.SOLVED), int(SolverStatus.NO_STEADY_STATE), status
        )
        shape = (*self.batch, self.times.shape[1], self.num_states)
        name = "torchdiffeq" if system is None else "compiled"
        return Solution(states.reshape(shape), status.reshape(self.batch), name)

    def rows(self) -> SolverRows:
        """All individuals and draws as rows."""
        num = self.batch.numel()

        def flat(x: Tensor, *tail: int) -> Tensor:
            return x.to(self.dtype).expand(*self.batch, *tail).reshape(num, *tail)

        return SolverRows(
            self.start,
            flat(self.initial, self.num_states),
            {n: flat(x, self.pieces) for n, x in self.parameters.items()},
            self._events.rows(self.batch, self.dtype),
            self.initial.new_zeros(num, 0, self.num_states, dtype=self.dtype),
            flat(self.times, self.times.shape[1]),
        )

    def system(self, rows: SolverRows) -> System | None:
        """The compiled system, or None if torchdiffeq must be used."""
        forced = self.control.solver != "auto"
        if self.needs_gradient or rows.initial.device.type != "cpu":
            if forced:
                raise ModelError(
                    f"solver={self.control.solver!r} with a gradient, or on "
                    f"{rows.initial.device.type}.",
                    "inputs on the CPU without gradients.",
                    'use solver="auto", call it under `torch.no_grad()`, or detach the inputs.',
                )
            return None
        first = {n: x[:, 0] for n, x in rows.parameters.items()}
        system = system_for(self.f, self.num_states, first, rows.initial, self.key)
        if system is None and forced:
            raise ModelError(
                f"solver={self.control.solver!r}, but the right-hand side cannot be compiled.",
                "elementwise operations of torch, without branches on values.",
                "see the log for the reason; write branches as `torch.where`, or use "
                'solver="torchdiffeq".',
            )
        return system

    def steady_states(
        self, rows: SolverRows, system: System | None, method: str
    ) -> tuple[Tensor, Tensor]:
        """State at each steady-state record, ``(row, dose, state)``, and which rows failed."""
        num = len(rows.initial)
        lost = torch.zeros(num, dtype=torch.bool, device=rows.initial.device)
        if self.arriving is None or not bool((self.arriving.doses.steady_state > 0).any()):
            return rows.vectors, lost
        doses = self.arriving.doses
        columns = [
            self._steady_state(j, rows, system, method, lost)
            if bool((doses.steady_state[:, j] > 0).any())
            else torch.zeros_like(rows.initial)
            for j in range(doses.times.shape[1])
        ]
        return torch.stack(columns, 1), lost

    def _steady_state(
        self, column: int, rows: SolverRows, system: System | None, method: str, lost: Tensor
    ) -> Tensor:
        """State at the records of a column of doses, ``(row, state)``; adds to the failed rows."""
        used, interval = self._interval(column, rows)
        tolerance = self.control.tolerance
        tolerance = tolerance._replace(rtol=tolerance.rtol / FIXED_POINT.precision)

        def period(x: Tensor) -> Tensor:
            copies = len(x) // max(1, len(used))
            repeated = _repeat(interval, copies, x)
            if system is not None:
                return _compiled(system, repeated, method, tolerance)[0][:, -1]
            return solve_rows(self.f, repeated, tolerance)[0][:, -1]

        point, converged = fixed_point(period, torch.zeros_like(interval.initial), tolerance.rtol)
        if self.needs_gradient:
            point = with_gradient(period, point)
        point = torch.where(converged.unsqueeze(-1), point, torch.nan)
        lost[used] |= ~converged
        return torch.zeros_like(rows.initial).index_copy(0, used, point)

    def _interval(self, column: int, rows: SolverRows) -> tuple[Tensor, SolverRows]:
        """The rows with a steady-state dose in a column, and the interval before its record, from
        time 0 on.
        """
        assert self.arriving is not None
        doses = self.arriving.doses
        interval, record = doses.intervals[:, column], doses.times[:, column]
        span = (self.times[:, -1] - self.start).clamp(min=0)
        default = torch.where(span > 0, span, torch.full_like(span, NO_TIMES)).to(interval.dtype)
        length = torch.where(interval > 0, interval, default)
        events = period_events(self.arriving, column, length).rows(self.batch, self.dtype)
        steady = (doses.steady_state[:, column] > 0).expand(self.batch).reshape(-1)
        used = steady.nonzero()[:, 0]
        own_length = length.to(self.dtype).expand(self.batch).reshape(-1)[used]
        begin = record.to(self.dtype).expand(self.batch).reshape(-1)[used] - own_length
        return used, SolverRows(
            0.0,
            rows.initial[used],
            {
                n: _piece_at(x[used], rows.events, used, begin + own_length)
                for n, x in rows.parameters.items()
            },
            Events(*(x[used] for x in vars(events).values())),
            rows.vectors[used],
            own_length.unsqueeze(-1),
        )


def _piece_at(values: Tensor, events: Events, used: Tensor, time: Tensor) -> Tensor:
    """The value of a parameter at a time, shape ``(row, 1)``."""
    if values.shape[1] == 1:
        return values
    passed = (events.kinds[used] == Event.NEXT_PIECE) & (events.times[used] <= time.unsqueeze(-1))
    return values.gather(1, passed.sum(1, keepdim=True))


def _repeat(rows: SolverRows, copies: int, initial: Tensor) -> SolverRows:
    return SolverRows(
        rows.start,
        initial,
        {n: repeated_rows(x, copies) for n, x in rows.parameters.items()},
        Events(*(repeated_rows(x, copies) for x in vars(rows.events).values())),
        repeated_rows(rows.vectors, copies),
        repeated_rows(rows.times, copies),
    )


def _compiled(
    system: System, rows: SolverRows, method: str, tolerance: Tolerance
) -> tuple[Tensor, Tensor]:
    names = list(rows.parameters.values())
    shape = (len(rows.initial), 1, 0)
    stacked = torch.stack(names, -1) if names else rows.initial.new_zeros(shape)
    events = rows.events
    arrays = [rows.initial, stacked, events.times, events.kinds, events.places, events.sizes]
    arrays += [rows.vectors, rows.times]
    problem = Problem(
        float(rows.start),
        *(
            (x.detach().double() if x.is_floating_point() else x).contiguous().numpy()
            for x in arrays
        ),
    )
    with torch_threads(threads_of_caller()):  # a solver uses them well, where small tensors do not
        solution = run(system, problem, method, tolerance.rtol, tolerance.atol, tolerance.max_steps)
    states = torch.from_numpy(solution.states).to(rows.initial.dtype)
    return states, torch.from_numpy(solution.status)


def _common_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """The floating dtype of the solution, at least single precision."""
    dtype = torch.float32
    for x in tensors:
        if x.is_floating_point():
            dtype = torch.promote_types(dtype, x.dtype)
    return dtype
