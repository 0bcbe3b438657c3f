r"""Quantities that a model passes to a closed form or a solver: numbers or tensors."""

from typing import Any

import torch
from torch import Tensor

from ..cohort import Doses
from ..errors import ModelError
from ..runtime.arguments import check_is

Quantity = Tensor | float


def as_quantity(name: str, value: Any, like: Tensor, num: int | None = None) -> Tensor:
    r"""A quantity as a tensor of shape ``(*, individual)``.

    Args:
        name: Name of the argument, for the message.
        value: A number, or a tensor.
        like: A tensor of the dtype and device that a number gets.
        num: Number of individuals. Default: not checked.

    Returns:
        The tensor itself; a number, and a tensor without a dimension, get one of size 1.

    Raises:
        ModelError: The value is neither, or its last dimension is not that of the individuals.

    Example:
        >>> as_quantity("cl", 2, torch.zeros(3))
        tensor([2.])
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        return torch.full((1,), float(value), dtype=dtype, device=like.device)
    if not isinstance(value, Tensor):
        raise ModelError(
            f"`{name}` is {'None' if value is None else f'a {type(value).__name__}'}.",
            "a tensor of shape (*, individual), or a number.",
            f"pass for instance `{name}=phi[..., 0].exp()`.",
        )
    if value.dim() == 0:
        return value.reshape(1)
    if num is not None and num > 1 and value.shape[-1] not in (1, num):
        raise ModelError(
            f"`{name}` has the shape {tuple(value.shape)}; there are {num} individuals.",
            "a tensor of shape (*, individual), or a number.",
            "the individuals are the last dimension: `phi.exp().unbind(-1)` takes the parameters "
            "of all individuals apart.",
        )
    return value


def check_times(times: Any) -> None:
    r"""Raise unless times are a tensor of shape ``(individual, time)``.

    Raises:
        ModelError: They are not.
    """
    check_is("times", times, Tensor, "pass `series.times`.", ModelError)
    if times.dim() != 2:
        raise ModelError(
            f"`times` has shape {tuple(times.shape)}.",
            "(individual, time).",
            "`times.expand(N, -1)` repeats a common grid.",
        )


def check_times_and_doses(times: Any, doses: Any) -> None:
    r"""Raise unless times and doses are of the right kind.

    Raises:
        ModelError: One of them is not.
    """
    check_times(times)
    fix = (
        "pass `cohort.doses`; a table has doses where AMT is positive (EVID 1), a study where it "
        "has a regimen."
    )
    check_is("doses", doses, Doses, fix, ModelError)
