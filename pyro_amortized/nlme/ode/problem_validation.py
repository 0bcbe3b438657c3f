r"""Checks of the inputs of the solver."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...cohort import Doses
from ...errors import ModelError
from ...runtime.arguments import check_is
from ..quantities import check_times
from .events import is_before


def check_inputs(
    initial: Tensor,
    times: Tensor,
    parameters: Mapping[str, Tensor],
    varying: Mapping[str, Tensor],
    start: float,
    doses: Doses | None,
) -> None:
    r"""Raise if a call cannot be solved as it is written.

    Raises:
        ModelError: A shape, a time, a name or a compartment is wrong.
    """
    _check_times(times, start)
    repeated = set(parameters) & set(varying)
    if repeated:
        raise ModelError(
            f"The parameters {sorted(repeated)} are given twice.",
            "every parameter once.",
            "leave them out of `parameters`, or out of `piecewise=`.",
        )
    if not initial.dim():
        raise ModelError(
            "`initial` has no states.",
            "a tensor of shape (*, individual, state) or (state,).",
            "pass for instance `torch.zeros(2)` for two states.",
        )
    if doses is not None and bool((doses.compartment[doses.given] > initial.shape[-1]).any()):
        raise ModelError(
            f"A dose enters compartment {int(doses.compartment.max())} of {initial.shape[-1]} "
            "states.",
            f"compartments 1 to {initial.shape[-1]}.",
            "correct `doses.compartment`, or give the dynamics more states.",
        )


def check_kinds(initial: Any, times: Any, parameters: Any) -> None:
    r"""Raise unless the arguments are of the right kind.

    Raises:
        ModelError: One of them is not.
    """
    fix = "pass for instance `torch.zeros(2)` for two states."
    check_is("initial", initial, Tensor, fix, ModelError)
    check_times(times)
    fix = "pass a dictionary, `{'cl': cl, 'v': v}`."
    check_is("parameters", parameters, Mapping, fix, ModelError)


def as_switches(switches: Any, times: Tensor) -> Tensor | None:
    r"""Times at which the right-hand side changes, shape ``(individual, switch)``, or None.

    Raises:
        ModelError: They are no numbers, or have another shape.
    """
    if switches is None:
        return None
    try:
        given = torch.as_tensor(switches, dtype=times.dtype, device=times.device).detach()
    except (TypeError, ValueError, RuntimeError):
        given = None
    if given is None or given.dim() > 2 or (given.dim() == 2 and len(given) != len(times)):
        found = type(switches).__name__ if given is None else f"of shape {tuple(given.shape)}"
        raise ModelError(
            f"`switches` is {found}.",
            "numbers, or a tensor of shape (switch,) or (individual, switch).",
            "pass for instance `switches=[10.0, 10.5]`.",
        )
    return given if given.dim() == 2 else given.reshape(1, -1).expand(len(times), -1)


def _check_times(times: Tensor, start: float) -> None:
    """Raise unless the times of every individual are sorted and at or after the start."""
    if bool(is_before(times[:, 0], start).any()):
        raise ModelError(
            f"An observation is at time {float(times.min())}, before the start {start}.",
            "observations and doses at or after the time of the initial state.",
            "pass an earlier `start=`.",
        )
    decreases = times[:, 1:] < times[:, :-1]
    if bool(decreases.any()):
        raise ModelError(
            f"The times of individual {int(decreases.any(1).nonzero()[0])} are not sorted.",
            "times that do not decrease along the row.",
            "sort them, as in a `Series` of a cohort.",
        )
