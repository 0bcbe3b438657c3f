r"""Ordinary differential equations with doses, every individual on its own clock.

torchdiffeq knows one time grid for the whole batch. Here the events of each individual
(observations, starts and ends of doses) are sorted into knots :math:`t_0 \le t_1 \le \dots`;
between knot j and j + 1 all individuals advance together in rescaled time,

.. math:: \frac{dx}{ds} = (t_{j+1} - t_j)\, [f(t_j + s (t_{j+1} - t_j), x) + r_j], \qquad s \in [0,
    1],

with :math:`r_j` the rates of the infusions that are running; boluses jump the state at their knot.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchdiffeq import odeint

from ..cohort import Doses
from ..errors import ModelError

Parameters = Mapping[str, Tensor]
RightHandSide = Callable[[Tensor, Tensor, Parameters], Tensor]
MAX_STEPS = 500


def solve(
    f: RightHandSide,
    initial: Tensor,
    times: Tensor,
    parameters: Parameters,
    *,
    doses: Doses | None = None,
    start: float = 0.0,
    rtol: float = 1e-7,
) -> Tensor:
    r"""States of an ODE at every individual's own times, after its own doses.

    Args:
        f: Right-hand side ``f(t, x, parameters)``: ``t`` has shape ``(batch,)``, ``x`` ``(batch,
            state)``, every parameter ``(batch,)``; returns dx/dt, shape of ``x``.
        initial: State at ``start``, shape ``(state,)`` or ``(*, individual, state)``.
        times: Observation times, shape ``(individual, time)``, sorted, none before ``start``.
        parameters: By name, each of shape ``(*, individual)``.
        doses: Doses into the states: compartment 1 is the first state. An observation at the time
            of a dose sees the dose.
        start: Time of the initial state.
        rtol: Relative tolerance of the Dormand-Prince steps; the absolute one is a hundredth of it.
            It holds for the worst individual, not for the mean over the batch.

    Returns:
        States, shape ``(*, individual, time, state)``, differentiable in parameters and initial
        state. An individual whose trajectory the solver cannot follow is NaN; the others are not
        affected.

    Raises:
        ModelError: An event lies before ``start``, or a dose names a state that does not exist.

    Example:
        >>> decay = lambda t, x, p: -p["k"][:, None] * x
        >>> k = torch.tensor([1.0])
        >>> x = solve(decay, torch.tensor([1.0]), torch.tensor([[0.0, 1.0]]), {"k": k})
        >>> x.squeeze()
        tensor([1.0000, 0.3679])

    References:
        Chen (2018), torchdiffeq; Dormand and Prince (1980).
    """
    tensors = torch.broadcast_tensors(*parameters.values(), initial[..., 0], times[:, 0])
    batch, num, num_states = tensors[0].shape, tensors[0].numel(), initial.shape[-1]
    dtype = torch.promote_types(torch.promote_types(initial.dtype, times.dtype), tensors[0].dtype)
    flat = {name: x.reshape(num).to(dtype) for name, x in zip(parameters, tensors, strict=False)}
    state = initial.expand(*batch, num_states).reshape(num, num_states).to(dtype)
    times = times.to(dtype)
    knots, jumps, rates = _events(times, doses, start, num_states)
    rows = torch.arange(len(times), device=times.device).repeat(num // len(times))
    states = [state + jumps[rows, 0]]
    for j in range(knots.shape[1] - 1):
        length = (knots[:, j + 1] - knots[:, j])[rows]
        moved = _advance(f, states[-1], knots[rows, j], length, rates[rows, j], flat, rtol)
        states.append(moved + jumps[rows, j + 1])
    position = torch.searchsorted(knots, times.contiguous(), right=True)[rows] - 1
    path = torch.stack(states, 1)
    found = path.gather(1, position.unsqueeze(-1).expand(-1, -1, num_states))
    return found.reshape(*batch, times.shape[1], num_states)


def _events(
    times: Tensor, doses: Doses | None, start: float, num_states: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Knots ``(individual, knot)``, jumps at them and rates behind them ``(individual, knot,
    state)``.
    """
    first = torch.full_like(times[:, :1], start)
    if doses is None:
        knots = torch.cat([first, times], 1)
        still = knots.new_zeros(*knots.shape, num_states)
        return _after_start(knots, start), still, still
    if bool(((doses.compartment < 1) | (doses.compartment > num_states)).any()):
        raise ModelError(
            f"A dose enters compartment {int(doses.compartment.max())} of {num_states} states.",
            f"compartments 1 to {num_states}.",
            "correct `doses.compartment`, or give the dynamics more states.",
        )
    given, infused = doses.given, doses.given & (doses.durations > 0)
    begin = torch.where(given, doses.times.to(times.dtype), first)
    end = torch.where(infused, begin + doses.durations.to(times.dtype), begin)
    knots = _after_start(torch.cat([first, times, begin, end], 1).sort(1).values, start)
    into = torch.nn.functional.one_hot(doses.compartment - 1, num_states).to(times.dtype)
    amounts = doses.amounts.to(times.dtype)
    at = torch.nn.functional.one_hot(
        torch.searchsorted(knots, begin.contiguous()), knots.shape[1]
    ).to(times.dtype)
    jumps = torch.einsum("idk,id,ids->iks", at, amounts * (given & ~infused), into)
    running = (begin.unsqueeze(1) <= knots.unsqueeze(2)) & (knots.unsqueeze(2) < end.unsqueeze(1))
    rate = torch.where(
        infused, amounts / (end - begin).clamp(min=torch.finfo(times.dtype).tiny), 0.0
    )
    return knots, jumps, torch.einsum("ikd,id,ids->iks", running.to(times.dtype), rate, into)


def _after_start(knots: Tensor, start: float) -> Tensor:
    if bool((knots < start).any()):
        raise ModelError(
            f"An event lies at time {float(knots.min())}, before the start {start}.",
            "observations and doses at or after the time of the initial state.",
            "pass an earlier `start=`.",
        )
    return knots


def _advance(
    f: RightHandSide,
    x: Tensor,
    begin: Tensor,
    length: Tensor,
    rate: Tensor,
    parameters: Parameters,
    rtol: float,
) -> Tensor:
    """Advance every row by its own length of time; rows that cannot be followed become NaN."""
    moving = ((length > 0) & x.isfinite().all(-1)).nonzero()[:, 0]
    if len(moving) == 0:
        return x
    part = {name: value[moving] for name, value in parameters.items()}
    end = _integrate(f, x[moving], begin[moving], length[moving], rate[moving], part, rtol)
    return x.index_copy(0, moving, end)


def _integrate(
    f: RightHandSide,
    x: Tensor,
    begin: Tensor,
    length: Tensor,
    rate: Tensor,
    parameters: Parameters,
    rtol: float,
) -> Tensor:
    def rescaled(s: Tensor, y: Tensor) -> Tensor:
        return length.unsqueeze(-1) * (f(begin + s * length, y, parameters) + rate)

    def worst(y: Tensor) -> Tensor:
        # Detached: the steps are no function of the parameters, and a norm of zero has no gradient.
        return y.detach().reshape(len(x), -1).pow(2).mean(-1).sqrt().max()

    unit = torch.tensor([0.0, 1.0], dtype=x.dtype, device=x.device)
    options = {"norm": worst, "max_num_steps": MAX_STEPS}
    try:
        end: Tensor = odeint(
            rescaled, x, unit, rtol=rtol, atol=rtol / 100, method="dopri5", options=options
        )[-1]
    except AssertionError:  # torchdiffeq's sign for a step size of zero, NaN, or too many steps
        if len(x) == 1:
            return torch.full_like(x, torch.nan)
        halves = [slice(0, len(x) // 2), slice(len(x) // 2, None)]
        parts = [
            _integrate(
                f,
                x[h],
                begin[h],
                length[h],
                rate[h],
                {n: v[h] for n, v in parameters.items()},
                rtol,
            )
            for h in halves
        ]
        return torch.cat(parts)
    return end
