r"""Ordinary differential equations with doses, at each individual's own times."""

import logging
from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

from torch import Tensor

from ...cohort import Doses
from ...runtime.solver_context import (
    MAX_NAMED,
    active_failure_count,
    cached_result,
    caller_reports_failures,
    labels_of_rows,
)
from ..dosing import Delivery
from ..quantities import Quantity
from .compiled.codes import SolverStatus
from .compiled.tracing import RightHandSide
from .problem import REASONS, Piecewise, Solution, Task
from .solver_options import DEFAULTS, Solver, SolverOptions

LOG = logging.getLogger("pyro_amortized.nlme")


class Options(TypedDict, total=False):
    """Options of :func:`solve` and :func:`integrate`."""

    doses: Doses | None
    delivery: Delivery | None
    piecewise: Piecewise | None
    switches: Tensor | Sequence[float] | None
    start: float
    solver: Solver
    rtol: float
    atol: float | None
    max_steps: int


def solve(
    f: RightHandSide,
    initial: Tensor,
    times: Tensor,
    parameters: Mapping[str, Quantity],
    *,
    doses: Doses | None = None,
    delivery: Delivery | None = None,
    piecewise: Piecewise | None = None,
    switches: Tensor | Sequence[float] | None = None,
    start: float = 0.0,
    solver: Solver = DEFAULTS.solver,
    rtol: float = DEFAULTS.rtol,
    atol: float | None = DEFAULTS.atol,
    max_steps: int = DEFAULTS.max_steps,
) -> Tensor:
    r"""States of an ODE at every individual's own times, after its own doses.

    Args:
        f: Right-hand side ``f(t, x, parameters)``: ``t`` has shape ``(batch,)``, ``x`` ``(batch,
            state)``, every parameter ``(batch,)``; returns dx/dt, shape of ``x``.
        initial: State at ``start``, shape ``(state,)`` or ``(*, individual, state)``.
        times: Observation times, shape ``(individual, time)``, sorted, none before ``start``.
        parameters: By name, each of shape ``(*, individual)``, or a number.
        doses: Doses into the states: compartment 1 is the first state. An observation at the time
            of a dose sees the dose. A reset returns to ``initial``.
        delivery: Lag time, bioavailability, modelled rates and durations of the doses.
        piecewise: Parameters that change at given times.
        switches: Times at which the right-hand side itself changes (``torch.where(t >= 10, ...)``),
            for all individuals or of shape ``(individual, switch)``. Default: a compiled system
            finds those at which the time passes a number or a parameter; torchdiffeq may step over
            a short pulse.
        start: Time of the initial state.
        solver: "compiled" traces the right-hand side, compiles it and gives every individual its
            own steps; it has no gradients. It uses an explicit method of order 5, and an implicit
            one (Rodas4) for individuals whose dynamics are stiff; "explicit" and "implicit" choose
            one of them. "torchdiffeq" (Dormand-Prince) works for any right-hand side and is
            differentiable. "auto" uses torchdiffeq if a gradient is needed or compilation is not
            possible (the reason is logged), and otherwise the compiled solver.
        rtol: Relative tolerance; it holds for every individual, not for the mean over the batch.
        atol: Absolute tolerance. Default: a hundredth of the relative one. The compiled solvers
            also accept an error of a hundredth of ``rtol`` times the largest value of a state.
        max_steps: Largest number of steps of an individual; with torchdiffeq, of a segment.

    Returns:
        States, shape ``(*, individual, time, state)``, differentiable in parameters, initial state
        and delivery. An individual that the solver cannot solve is NaN, and the reason is logged
        (except in simulations of training data, where failures are counted and reported together).
        The other individuals are not affected. :func:`integrate` also returns a status.

    Raises:
        ModelError: An event is before ``start``, a dose names a state that does not exist, a shape
            is wrong, or the chosen solver cannot solve this problem.

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
    solution = integrate(
        f,
        initial,
        times,
        parameters,
        doses=doses,
        delivery=delivery,
        piecewise=piecewise,
        switches=switches,
        start=start,
        solver=solver,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
    )
    count = active_failure_count()
    if caller_reports_failures():
        return solution.states
    if count is not None:
        count.add(solution.failed)
    elif bool(solution.failed.any()):
        _log(solution)
    return solution.states


def integrate(
    f: RightHandSide,
    initial: Tensor,
    times: Tensor,
    parameters: Mapping[str, Quantity],
    **options: Unpack[Options],
) -> Solution:
    r"""As :func:`solve`, with a status per individual.

    Args:
        f: Right-hand side.
        initial: State at ``start``.
        times: Observation times.
        parameters: By name.
        options: Those of :func:`solve`.

    Raises:
        ModelError: As in :func:`solve`.
    """
    control = SolverOptions(
        options.get("solver", DEFAULTS.solver),
        options.get("rtol", DEFAULTS.rtol),
        options.get("atol", DEFAULTS.atol),
        options.get("max_steps", DEFAULTS.max_steps),
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
        options.get("switches"),
    )
    if task.key is None or task.needs_gradient:
        return task.solution()
    return cached_result(
        (task.key, control, start, task.batch, tuple(task.parameters)),
        task.inputs,
        task.solution,
        lambda s: s.states.numel() * s.states.element_size(),
    )


def _log(solution: Solution) -> None:
    failed = solution.failed.reshape(-1, solution.failed.shape[-1])
    rows = failed.any(0).nonzero()[:, 0].tolist()
    individuals = labels_of_rows(rows, failed.shape[-1])
    codes = [SolverStatus(int(code)) for code in solution.status.unique() if code]
    counts = {REASONS[code]: int((solution.status == code).sum()) for code in codes}
    LOG.warning(
        "%d of %d trajectories were not solved (%s), of individuals %s%s.",
        int(failed.sum()),
        failed.numel(),
        ", ".join(f"{reason}: {count}" for reason, count in counts.items()),
        ", ".join(individuals[:MAX_NAMED]),
        " ..." if len(individuals) > MAX_NAMED else "",
    )
