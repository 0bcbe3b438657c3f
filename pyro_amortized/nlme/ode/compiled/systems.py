r"""Compiled systems: made once per right-hand side, and compared with it."""

import functools
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .expressions import Node, write
from .kernel_cache import load_kernel
from .rosenbrock_source import implicit_source
from .scalar_source import explicit_source
from .simd_source import lanes_source
from .time_switches import time_differences
from .tracing import NotTraceable, RightHandSide, Traced, trace

LOG = logging.getLogger("pyro_amortized.nlme")


@dataclass(frozen=True)
class CompilationLimits:
    r"""When a right-hand side is compiled, and how it is compared.

    Args:
        max_states: More states are solved by torchdiffeq, whose vectors then pay.
        max_statements: Operations of a right-hand side; compilation takes seconds per thousand.
        max_versions: Versions of one function that are compiled. More versions mean that the
            function captures values that keep changing.
        max_cached: Systems that are kept.
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
    usual_steps: float = 100.0
    num_checked: int = 3
    compared_at: tuple[tuple[float, float], ...] = ((1.0, 0.0), (1.1, 1.7))
    rtol: float = 1e-9
    atol: float = 1e-12


LIMITS = CompilationLimits()

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
        usual_steps: Mean number of steps of a row in the last call.
    """

    traced: Traced
    usual_steps: float = LIMITS.usual_steps
    _made: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def time_differences(self) -> tuple[Node, ...]:
        """What changes its sign where the right-hand side compares the time with parameters."""
        return time_differences(self.traced.slopes)

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
