r"""Compiled systems: made once per right-hand side, compared with it, and run in threads."""

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

from .codes import Status
from .expressions import write
from .kernel_cache import call_kernel, load_kernel
from .rosenbrock_source import implicit_source
from .scalar_source import explicit_source
from .simd_source import lanes_source
from .tracing import NotTraceable, Traced, trace

RightHandSide = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
LOG = logging.getLogger("pyro_amortized.nlme")


@dataclass(frozen=True)
class CompilationLimits:
    r"""When a right-hand side is compiled, and how it is solved.

    Args:
        max_states: More states are solved by torchdiffeq, whose vectors then pay.
        max_statements: Operations of a right-hand side; compilation takes seconds per thousand.
        max_versions: Versions of one function that are compiled. More versions mean that the
            function captures values that keep changing.
        max_cached: Systems that are kept.
        detection_steps: Steps of the explicit solver after which a row goes to the implicit one.
        stiff_share: Share of such rows above which the system is solved implicitly from then on.
        steps_per_thread: Fewer steps take less time than to start a second thread.
        parts_per_thread: Parts that the rows are divided into, per thread: rows take different
            numbers of steps, and a thread that has finished takes the next part.
        usual_steps: Steps of a row that are expected before the first call.
        num_checked: Rows of the call at which the expressions are compared with the function.
        compared_at: Factors on the states, and times, at which they are compared: those of the
            call, and others, by which a constant of the call would be found.
        rtol: Relative difference that rounding in another order of operations may make.
        atol: The same for values near zero, as an absolute difference.
    """

    max_states: int = 40
    max_statements: int = 1_000
    max_versions: int = 8
    max_cached: int = 64
    detection_steps: int = 5_000
    stiff_share: float = 0.05
    steps_per_thread: int = 100_000
    parts_per_thread: int = 4
    usual_steps: float = 100.0
    num_checked: int = 3
    compared_at: tuple[tuple[float, float], ...] = ((1.0, 0.0), (1.1, 1.7))
    rtol: float = 1e-9
    atol: float = 1e-12


LIMITS = CompilationLimits()

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_kernels: dict[str, Any] = {}
_systems: "OrderedDict[Any, System]" = OrderedDict()
_refused: "OrderedDict[Any, None]" = OrderedDict()
_versions: dict[Any, set[str]] = {}
_logged: set[tuple[str, str]] = set()


@dataclass(eq=False)
class System:
    r"""A traced right-hand side and its solvers, which are compiled when they are first needed.

    Args:
        traced: The scalar expressions.
        is_stiff: Whether the explicit solver found it stiff in an earlier call.
        usual_steps: Mean number of steps of a row in the last call.
    """

    traced: Traced
    is_stiff: bool = False
    usual_steps: float = LIMITS.usual_steps
    _made: dict[str, Any] = field(default_factory=dict)

    def kernel(self, method: str) -> Any:
        """The compiled solver, "explicit" or "implicit"."""
        if method not in self._made:
            if method == "implicit":
                source = implicit_source(self.traced)
            else:
                source = lanes_source(self.traced) or explicit_source(self.traced)
            if source not in _kernels:
                _kernels[source] = load_kernel(source)
            self._made[method] = _kernels[source]
        return self._made[method]


def system_for(
    f: RightHandSide,
    num_states: int,
    parameters: Mapping[str, Tensor],
    state: Tensor,
    key: Any = None,
) -> System | None:
    r"""The compiled system of a right-hand side, or None if it cannot be compiled.

    The reason is logged once. A function with a key is traced once for each value of the key. A
    function without one is traced at every call; its compiled code is used again if it computes
    the same. After eight versions a function is no longer compiled.

    Args:
        f: Right-hand side.
        num_states: Number of states.
        parameters: By name, shape ``(row,)``.
        state: States at which the expressions are compared with the function, ``(row, state)``.
        key: What the function computes with, from :func:`~.function_keys.key_of`; None if unknown.
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
        if (name, str(reason)) not in _logged:
            LOG.warning("%s is solved by torchdiffeq, not compiled: %s.", name, reason)
            _logged.add((name, str(reason)))
        if key is not None:
            _keep(_refused, key, None)
        return None
    if key is not None:
        _keep(_systems, key, system)
    return system


def _version(f: RightHandSide, traced: Traced) -> System:
    """The system of these expressions, which may exist already."""
    text = "\n".join(write(traced.slopes, [f"y{s}" for s in range(traced.num_states)]))
    if text.count("\n") > LIMITS.max_statements:
        raise NotTraceable(f"it has more than {LIMITS.max_statements} operations")
    key = (text, traced.num_parameters)
    if key not in _systems:
        versions = _versions.setdefault(_code_of(f), set())
        if len(versions) >= LIMITS.max_versions:
            raise NotTraceable("the values that it captures keep changing; pass them as parameters")
        versions.add(text)
        _keep(_systems, key, System(traced))
    return _systems[key]


def _code_of(f: Any) -> Any:
    """The code of a function, which its versions have in common."""
    while isinstance(f, functools.partial):
        f = f.func
    f = getattr(f, "__func__", f)
    return getattr(f, "__code__", type(f))


def _keep(cache: "OrderedDict[Any, Any]", key: Any, value: Any) -> None:
    cache[key] = value
    if len(cache) > LIMITS.max_cached:
        cache.popitem(last=False)


def _traced(
    f: RightHandSide,
    num_states: int,
    names: tuple[str, ...],
    parameters: Mapping[str, Tensor],
    state: Tensor,
) -> Traced:
    if num_states > LIMITS.max_states:
        raise NotTraceable(f"it has {num_states} states, more than {LIMITS.max_states}")
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
    """Compare the expressions with the function at some states of this call, and at others."""
    from .expressions import evaluate

    rows = slice(0, LIMITS.num_checked)
    for factor, t in LIMITS.compared_at:
        x = state[rows].double() * factor + (factor - 1.0)
        inserted = {name: value[rows].double() for name, value in parameters.items()}
        with torch.no_grad():
            expected = f(torch.full_like(x[:, 0], t), x, inserted).double()
        for i in range(len(x)):
            inputs = {"t": t} | {f"x{s}": float(v) for s, v in enumerate(x[i])}
            inputs |= {f"p{j}": float(v[i]) for j, v in enumerate(inserted.values())}
            slopes = torch.tensor(evaluate(traced.slopes, inputs), dtype=torch.float64)
            finite = expected[i].isfinite()
            values, known = slopes[finite], expected[i][finite]
            if not torch.allclose(values, known, rtol=LIMITS.rtol, atol=LIMITS.atol):
                raise NotTraceable(
                    f"its expressions give {slopes.tolist()}, and the function gives "
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
        method: "explicit", "implicit" or "auto". The last is explicit, and implicit for rows that
            are stiff or take more than 5,000 steps. A system with more than 5 % such rows is
            solved implicitly from then on.
        rtol: Relative tolerance, of every row.
        atol: Absolute tolerance.
        max_steps: Largest number of steps of a row.
    """
    if method != "auto":
        return _run(system, method, problem, rtol, atol, max_steps, False)
    if system.is_stiff:
        return _run(system, "implicit", problem, rtol, atol, max_steps, False)
    limit = min(max_steps, LIMITS.detection_steps)
    result = _run(system, "explicit", problem, rtol, atol, limit, True)
    failed = (result.status == Status.STIFF) | (result.status == Status.TOO_MANY_STEPS)
    rows = np.flatnonzero(failed)
    if len(rows):
        system.is_stiff = len(rows) > LIMITS.stiff_share * len(result.status)
        part = _run(system, "implicit", problem.rows(rows), rtol, atol, max_steps, False)
        result.states[rows], result.status[rows] = part.states, part.status
        result.steps[rows] += part.steps
    return result


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
    rtol: float,
    atol: float,
    max_steps: int,
    detect: bool,
) -> KernelResult:
    kernel = system.kernel(method)
    num, num_states = problem.initial.shape
    out = np.empty((num, problem.times.shape[1], num_states))
    status = np.full(num, int(Status.SOLVED), dtype=np.int64)
    steps = np.zeros(num, dtype=np.int64)
    inputs = tuple(vars(problem).values())

    def part(low: int, high: int) -> None:
        rest = (max_steps, detect, out, status, steps, low, high)
        call_kernel(kernel, *inputs, rtol, atol, *rest)

    work = int(num * system.usual_steps) // LIMITS.steps_per_thread
    threads = min(torch.get_num_threads(), max(1, work))
    if threads == 1:
        part(0, num)
    else:
        edges = np.linspace(0, num, LIMITS.parts_per_thread * threads + 1).astype(int).tolist()
        part(0, 0)  # compiles before the threads start
        list(_pool(threads).map(part, edges[:-1], edges[1:]))
    if num:
        system.usual_steps = float(steps.mean())
    return KernelResult(out, status, steps)
