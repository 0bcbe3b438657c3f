r"""Ordinary differential equations with doses, every individual on its own clock."""

import logging
from collections.abc import Mapping
from typing import TypedDict, Unpack

from torch import Tensor

from ...cohort import Doses
from ...runtime.solver_context import cached_result, caller_reports_failures
from ..dosing import Delivery
from .compiled.systems import RightHandSide
from .problem import REASONS, Control, Piecewise, Solution, Solver, Task

LOG = logging.getLogger("pyro_amortized.nlme")


class Options(TypedDict, total=False):
    """Options of :func:`solve` and :func:`integrate`."""

    doses: Doses | None
    delivery: Delivery | None
    piecewise: Piecewise | None
    start: float
    solver: Solver
    rtol: float
    atol: float | None
    max_steps: int


def solve(
    f: RightHandSide,
    initial: Tensor,
    times: Tensor,
    parameters: Mapping[str, Tensor],
    *,
    doses: Doses | None = None,
    delivery: Delivery | None = None,
    piecewise: Piecewise | None = None,
    start: float = 0.0,
    solver: Solver = "auto",
    rtol: float = 1e-7,
    atol: float | None = None,
    max_steps: int = 20_000,
) -> Tensor:
    r"""States of an ODE at every individual's own times, after its own doses.

    Args:
        f: Right-hand side ``f(t, x, parameters)``: ``t`` has shape ``(batch,)``, ``x`` ``(batch,
            state)``, every parameter ``(batch,)``; returns dx/dt, shape of ``x``.
        initial: State at ``start``, shape ``(state,)`` or ``(*, individual, state)``.
        times: Observation times, shape ``(individual, time)``, sorted, none before ``start``.
        parameters: By name, each of shape ``(*, individual)``.
        doses: Doses into the states: compartment 1 is the first state. An observation at the time
            of a dose sees the dose. A reset returns to ``initial``.
        delivery: Lag time, bioavailability, modelled rates and durations of the doses.
        piecewise: Parameters that jump over time.
        start: Time of the initial state.
        solver: "compiled" writes the right-hand side out, compiles it and gives every individual
            its own steps; without gradients. "explicit" and "implicit" fix its method, which else
            is explicit (order 5), and implicit (Rodas4, for stiff systems) where the explicit one
            finds an individual stiff. "torchdiffeq" (Dormand-Prince) takes any right-hand side and
            is differentiable. "auto" takes torchdiffeq where a gradient is asked for or compilation
            is not possible (the reason is logged), else the compiled one.
        rtol: Relative tolerance; it holds for every individual, not for the mean over the batch.
        atol: Absolute tolerance. Default: a hundredth of the relative one; the compiled solvers
            also forgive a hundredth of the largest value that a state has had.
        max_steps: Largest number of steps of an individual (of a segment, under torchdiffeq).

    Returns:
        States, shape ``(*, individual, time, state)``, differentiable in parameters, initial state
        and delivery. An individual whose trajectory the solver cannot follow is NaN, and logged
        with the reason (but not in simulations of training data, where failures are counted and
        reported together); the others are not affected. :func:`integrate` returns a status.

    Raises:
        ModelError: An event lies before ``start``, a dose names a state that does not exist, a
            shape is wrong, or a solver was asked for that cannot do this.

    Example:
        >>> import torch
        >>> decay = lambda t, x, p: -p["k"][:, None] * x
        >>> k = torch.tensor([1.0])
        >>> x = solve(decay, torch.tensor([1.0]), torch.tensor([[0.0, 1.0]]), {"k": k})
        >>> x.squeeze()
        tensor([1.0000, 0.3679])

    References:
        Chen (2018), torchdiffeq; Dormand and Prince (1980); Tsitouras (2011); Hairer and Wanner
        (1996), IV.10.
    """
    found = integrate(
        f,
        initial,
        times,
        parameters,
        doses=doses,
        delivery=delivery,
        piecewise=piecewise,
        start=start,
        solver=solver,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
    )
    if not caller_reports_failures() and bool(found.failed.any()):
        _log(found)
    return found.states


def integrate(
    f: RightHandSide,
    initial: Tensor,
    times: Tensor,
    parameters: Mapping[str, Tensor],
    **options: Unpack[Options],
) -> Solution:
    r""":func:`solve`, with a status per individual.

    Args:
        f: Right-hand side.
        initial: State at ``start``.
        times: Observation times.
        parameters: By name.
        options: Those of :func:`solve`.

    Raises:
        ModelError: As :func:`solve`.
    """
    control = Control(
        options.get("solver", "auto"),
        options.get("rtol", 1e-7),
        options.get("atol"),
        options.get("max_steps", 20_000),
    )
    start = options.get("start", 0.0)
    task = Task(f, control, start)
    task.prepare(
        initial,
        times,
        parameters,
        options.get("doses"),
        options.get("delivery"),
        options.get("piecewise"),
    )
    if task.key is None or task.needs_gradient:
        return task.solution()
    return cached_result(
        (task.key, control, start, task.batch, tuple(task.parameters)),
        task.inputs,
        task.solution,
        lambda s: s.states.numel() * s.states.element_size(),
    )


def _log(found: Solution) -> None:
    failed = found.failed.reshape(-1, found.failed.shape[-1])
    individuals = failed.any(0).nonzero()[:, 0].tolist()
    counts = {REASONS[int(s)]: int((found.status == s).sum()) for s in found.status.unique() if s}
    LOG.warning(
        "%d of %d trajectories were not solved (%s), those of individuals %s%s.",
        int(failed.sum()),
        failed.numel(),
        ", ".join(f"{reason}: {count}" for reason, count in counts.items()),
        individuals[:10],
        " ..." if len(individuals) > 10 else "",
    )
