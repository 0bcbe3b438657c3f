r"""The rows of a call of a compiled solver: the method of each, and the threads.

Explicit steps are several times cheaper than implicit ones, and a stiff row needs implicit ones.
The explicit solver gives a stiff row up after about as much work as the implicit solver needs for
all of it. A few rows are therefore tried first.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from .codes import SolverStatus
from .kernel_cache import call_kernel
from .systems import System


@dataclass(frozen=True)
class RowLimits:
    r"""Which rows are solved by which method, and when threads are worth it.

    Args:
        detection_steps: Steps of the explicit solver after which a row goes to the implicit one.
        first_share: One of so many rows of a call is solved before the others, to choose the method
            for these.
        num_first: The smallest number of these rows; the explicit solver takes eight at once.
        stiff_share: Share of stiff rows among them from which the others are solved implicitly. A
            dynamics of four states took 14 microseconds a row explicitly and 136 implicitly; a
            stiff row was given up after 90, and solved implicitly in 95.
        steps_per_thread: Fewer steps take less time than to start a second thread.
        parts_per_thread: Parts that the rows are divided into, per thread: rows take different
            numbers of steps, and a thread that has finished takes the next part.
    """

    detection_steps: int = 5_000
    first_share: int = 16
    num_first: int = 8
    stiff_share: float = 0.5
    steps_per_thread: int = 100_000
    parts_per_thread: int = 4


LIMITS = RowLimits()

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Rows to solve, as NumPy arrays in float64.

    Args:
        start: Time of the initial states.
        initial: Shape ``(row, state)``.
        parameters: Shape ``(row, piece, parameter)``.
        event_times: Shape ``(row, event)``, sorted, infinite in the padding.
        event_kinds: Kinds of the events, :class:`~.codes.Event`.
        event_places: Index of the compartment, vector or piece of each event.
        event_sizes: Amount or rate of each event.
        vectors: States that events set or add, shape ``(row, vector, state)``.
        times: Observation times, shape ``(row, time)``, sorted.
    """

    start: float
    initial: Any
    parameters: Any
    event_times: Any
    event_kinds: Any
    event_places: Any
    event_sizes: Any
    vectors: Any
    times: Any

    def rows(self, index: Any) -> "Problem":
        """Some of the rows."""
        return Problem(self.start, *(x[index] for x in list(vars(self).values())[1:]))


class Control(NamedTuple):
    """Tolerances, the largest number of steps of a row, and whether a stiff one is given up."""

    rtol: float
    atol: float
    max_steps: int
    detect: bool


@dataclass(frozen=True, eq=False)
class KernelResult:
    """States ``(row, time, state)``, status and number of steps ``(row,)``."""

    states: Any
    status: Any
    steps: Any


def run(
    system: System, problem: Problem, method: str, rtol: float, atol: float, max_steps: int
) -> KernelResult:
    r"""Solve all rows, in as many threads as torch uses.

    Args:
        system: The system.
        problem: The rows.
        method: "explicit", "implicit" or "auto". The last is explicit for the first rows, and for
            all others unless half of the first ones are stiff or take more than 5,000 steps. Rows
            that are stiff are then solved implicitly.
        rtol: Relative tolerance, of every row.
        atol: Absolute tolerance.
        max_steps: Largest number of steps of a row.
    """
    num, width = len(problem.initial), problem.times.shape[1]
    result = KernelResult(
        np.empty((num, width, problem.initial.shape[1])),
        np.full(num, int(SolverStatus.SOLVED), dtype=np.int64),
        np.zeros(num, dtype=np.int64),
    )
    if num == 0:
        return result
    exactly = Control(rtol, atol, max_steps, False)
    if method == "auto":
        _choose(system, problem, exactly, result)
    else:
        _run(system, method, problem, exactly, result)
    system.usual_steps = float(result.steps.mean())
    return result


def _choose(system: System, problem: Problem, exactly: Control, result: KernelResult) -> None:
    """Solve each row by the method that suits it. The choice depends on the rows of this call
    alone: what an earlier call found far from here says nothing.
    """
    num = len(problem.initial)
    detecting = exactly._replace(
        max_steps=min(exactly.max_steps, LIMITS.detection_steps), detect=True
    )
    first = min(num, max(LIMITS.num_first, num // LIMITS.first_share))
    _run(system, "explicit", problem, detecting, result, (0, first))
    if _is_stiff(result.status[:first]).mean() < LIMITS.stiff_share:
        _run(system, "explicit", problem, detecting, result, (first, num))
    else:
        _run(system, "implicit", problem, exactly, result, (first, num))
        num = first
    rows = np.flatnonzero(_is_stiff(result.status[:num]))
    if len(rows):
        part = run(system, problem.rows(rows), "implicit", *exactly[:3])
        result.states[rows], result.status[rows] = part.states, part.status
        result.steps[rows] += part.steps


def _is_stiff(status: Any) -> Any:
    """Whether the explicit solver has given up a row."""
    return (status == SolverStatus.STIFF) | (status == SolverStatus.TOO_MANY_STEPS)


def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool of threads; a forked process makes its own."""
    key = (os.getpid(), threads)
    if key not in _pools:
        _pools.clear()
        _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="pyro_amortized-solver")
    return _pools[key]


def _run(
    system: System,
    method: str,
    problem: Problem,
    control: Control,
    result: KernelResult,
    rows: tuple[int, int] | None = None,
) -> None:
    """Solve rows into the result: from the first number to before the second, by default all."""
    kernel = system.kernel(method)
    first, last = rows or (0, len(problem.initial))
    inputs = tuple(vars(problem).values())

    def part(low: int, high: int) -> None:
        outputs = (result.states, result.status, result.steps)
        call_kernel(kernel, *inputs, *control, *outputs, low, high)

    work = int((last - first) * system.usual_steps) // LIMITS.steps_per_thread
    threads = min(torch.get_num_threads(), max(1, work))
    if threads == 1:
        part(first, last)
    else:
        edges = np.linspace(first, last, LIMITS.parts_per_thread * threads + 1).astype(int).tolist()
        part(first, first)  # compiles before the threads start
        list(_pool(threads).map(part, edges[:-1], edges[1:]))
