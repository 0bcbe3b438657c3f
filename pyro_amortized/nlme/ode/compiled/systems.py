r"""Compiled systems: made once per right-hand side, checked against it, run over threads."""

import functools
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .expressions import write
from .rosenbrock_source import implicit_source
from .scalar_source import OK, STIFF, TOO_MANY_STEPS, explicit_source
from .simd_source import lanes_source
from .tracing import NotTraceable, Traced, trace

RightHandSide = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
LOG = logging.getLogger("pyro_amortized.nlme")
MAX_STATES = 40
MAX_REMEMBERED = 64
MAX_STATEMENTS = 1_000
MAX_VERSIONS = 8
DETECTION_STEPS = 5_000
STIFF_SHARE = 0.05

STEPS_PER_THREAD = 100_000  # less is done before a second thread has started

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_kernels: dict[str, Any] = {}
_systems: "OrderedDict[Any, System]" = OrderedDict()
_refused: "OrderedDict[Any, None]" = OrderedDict()
_versions: dict[Any, set[str]] = {}
_told: set[tuple[str, str]] = set()


@dataclass(eq=False)
class System:
    r"""A traced right-hand side and its solvers, compiled when first needed.

    Args:
        traced: The scalar expressions.
        is_stiff: Whether the explicit solver gave up on it before.
        usual_steps: Mean number of steps of a row, as last seen.
    """

    traced: Traced
    is_stiff: bool = False
    usual_steps: float = 100.0
    _made: dict[str, Any] = field(default_factory=dict)

    def kernel(self, method: str) -> Any:
        """The compiled solver, "explicit" or "implicit"."""
        if method not in self._made:
            if method == "implicit":
                source = implicit_source(self.traced)
            else:
                source = lanes_source(self.traced) or explicit_source(self.traced)
            self._made[method] = _compiled(source)
        return self._made[method]


def _compiled(source: str) -> Any:
    if source not in _kernels:
        names: dict[str, Any] = {}
        exec(compile(source, "<pyro_amortized solver>", "exec"), names)
        _kernels[source] = names["kernel"]
    return _kernels[source]


def system_for(
    f: RightHandSide,
    num_states: int,
    parameters: Mapping[str, Tensor],
    state: Tensor,
    key: Any = None,
) -> System | None:
    r"""The compiled system of a right-hand side, or None where it cannot be compiled.

    The reason is logged once. A function with a key is traced once for each value of its key;
    another one at every call, which finds the compiled code again, unless what it computes has
    changed; after eight versions it is no longer compiled.

    Args:
        f: Right-hand side.
        num_states: Number of states.
        parameters: By name, shape ``(row,)``.
        state: Some states to compare the expressions with the program at, shape ``(row, state)``.
        key: What the function computes with, as :func:`~.identity.identity` tells; None: unknown.
    """
    names = tuple(parameters)
    key = (key, num_states, names) if key is not None else None
    if key is not None and key in _systems:
        _systems.move_to_end(key)
        return _systems[key]
    if key is not None and key in _refused:
        return None
    try:
        system = _version(f, _traced(f, num_states, names, parameters, state))
    except NotTraceable as reason:
        name = getattr(f, "__qualname__", type(f).__name__)
        if (name, str(reason)) not in _told:
            LOG.warning("%s is solved by torchdiffeq, not compiled: %s.", name, reason)
            _told.add((name, str(reason)))
        if key is not None:
            _remember(_refused, key, None)
        return None
    if key is not None:
        _remember(_systems, key, system)
    return system


def _version(f: RightHandSide, traced: Traced) -> System:
    """The system of these expressions, which a function may have had before."""
    text = "\n".join(write(traced.slopes, [f"y{s}" for s in range(traced.num_states)]))
    if text.count("\n") > MAX_STATEMENTS:
        raise NotTraceable(f"it has more than {MAX_STATEMENTS} operations")
    key = (text, traced.num_parameters)
    if key not in _systems:
        versions = _versions.setdefault(_code_of(f), set())
        if len(versions) >= MAX_VERSIONS:
            raise NotTraceable("the values that it captures keep changing; pass them as parameters")
        versions.add(text)
        _remember(_systems, key, System(traced))
    return _systems[key]


def _code_of(f: Any) -> Any:
    """What the versions of a function have in common: its code, whatever is bound to it."""
    while isinstance(f, functools.partial):
        f = f.func
    f = getattr(f, "__func__", f)
    return getattr(f, "__code__", type(f))


def _remember(memory: "OrderedDict[Any, Any]", key: Any, value: Any) -> None:
    memory[key] = value
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)


def _traced(
    f: RightHandSide,
    num_states: int,
    names: tuple[str, ...],
    parameters: Mapping[str, Tensor],
    state: Tensor,
) -> Traced:
    if num_states > MAX_STATES:
        raise NotTraceable(f"it has {num_states} states, more than {MAX_STATES}")
    try:
        import numba  # noqa: F401
    except ImportError as error:
        raise NotTraceable("numba is not installed") from error
    traced = trace(f, num_states, names)
    _check(f, traced, parameters, state)
    return traced


def _check(
    f: RightHandSide, traced: Traced, parameters: Mapping[str, Tensor], state: Tensor
) -> None:
    """Compare the expressions with the program at a few states of this call, and beside them."""
    from .expressions import evaluate

    rows = slice(0, 3)
    for shift, t in ((1.0, 0.0), (1.1, 1.7)):
        x = state[rows].double() * shift + (shift - 1.0)
        values = {name: value[rows].double() for name, value in parameters.items()}
        with torch.no_grad():
            expected = f(torch.full_like(x[:, 0], t), x, values).double()
        for i in range(len(x)):
            known = {"t": t} | {f"x{s}": float(v) for s, v in enumerate(x[i])}
            known |= {f"p{j}": float(v[i]) for j, v in enumerate(values.values())}
            found = torch.tensor(evaluate(traced.slopes, known), dtype=torch.float64)
            known_there = expected[i].isfinite()
            if not torch.allclose(
                found[known_there], expected[i][known_there], rtol=1e-9, atol=1e-12
            ):
                raise NotTraceable(
                    f"its expressions give {found.tolist()} where the program gives "
                    f"{expected[i].tolist()}"
                )


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Rows to solve, as NumPy arrays in float64.

    Args:
        start: Time of the initial states.
        initial: Shape ``(row, state)``.
        parameters: Shape ``(row, piece, parameter)``.
        event_times: Shape ``(row, event)``, sorted, infinite in the padding.
        event_kinds: Kinds of the events, as numbered in the kernels.
        event_places: Compartment (0 first), vector or piece of each event.
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


@dataclass(frozen=True, eq=False)
class Found:
    """States ``(row, time, state)``, status and number of steps ``(row,)``."""

    states: Any
    status: Any
    steps: Any


def run(
    system: System, problem: Problem, method: str, rtol: float, atol: float, max_steps: int
) -> Found:
    r"""Solve all rows, over as many threads as torch has.

    Args:
        system: What to solve.
        problem: Where.
        method: "explicit", "implicit", or "auto": explicit, and implicit for rows on which that is
            stiff or takes more than 5,000 steps. A system with more than 5 % such rows is solved
            implicitly from then on.
        rtol: Relative tolerance, of every row.
        atol: Absolute tolerance.
        max_steps: Largest number of steps of a row.
    """
    if method != "auto":
        return _run(system, method, problem, rtol, atol, max_steps, False)
    if system.is_stiff:
        return _run(system, "implicit", problem, rtol, atol, max_steps, False)
    limit = min(max_steps, DETECTION_STEPS)
    found = _run(system, "explicit", problem, rtol, atol, limit, True)
    again = np.flatnonzero((found.status == STIFF) | (found.status == TOO_MANY_STEPS))
    if len(again):
        system.is_stiff = len(again) > STIFF_SHARE * len(found.status)
        part = _run(system, "implicit", problem.rows(again), rtol, atol, max_steps, False)
        found.states[again], found.status[again] = part.states, part.status
        found.steps[again] += part.steps
    return found


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process makes its own."""
    key = (os.getpid(), threads)
    if key not in _pools:
        _pools.clear()
        _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="pyro_amortized-solver")
    return _pools[key]


def _run(
    system: System,
    method: str,
    problem: Problem,
    rtol: float,
    atol: float,
    max_steps: int,
    detect: bool,
) -> Found:
    kernel = system.kernel(method)
    num, num_states = problem.initial.shape
    out = np.empty((num, problem.times.shape[1], num_states))
    status = np.full(num, OK, dtype=np.int64)
    steps = np.zeros(num, dtype=np.int64)
    inputs = tuple(vars(problem).values())

    def part(low: int, high: int) -> None:
        kernel(*inputs, rtol, atol, max_steps, detect, out, status, steps, low, high)

    work = int(num * system.usual_steps) // STEPS_PER_THREAD
    threads = min(torch.get_num_threads(), max(1, work))
    if threads == 1:
        part(0, num)
    else:
        edges = np.linspace(0, num, 4 * threads + 1).astype(int).tolist()
        part(0, 0)  # compiles before the threads start
        list(_pool(threads).map(part, edges[:-1], edges[1:]))
    if num:
        system.usual_steps = float(steps.mean())
    return Found(out, status, steps)
