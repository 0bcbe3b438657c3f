r"""Parts of a cohort whose individuals are copies of others, one set of them after the other.

A part remembers what it is copies of, so that what depends on it alone is computed once.
"""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor


class HasColumns(Protocol):
    """A part of a cohort: tensors by name, individuals first."""

    @property
    def columns(self) -> dict[str, Tensor]:
        """The tensors."""
        ...


Part = TypeVar("Part", bound=HasColumns)
Original = TypeVar("Original")


class Copies(NamedTuple, Generic[Original]):
    r"""What a part of a cohort is copies of.

    Args:
        num: Number of copies; individual i of copy k is row ``k * num_individuals + i``.
        original: The part with each individual once.
    """

    num: int
    original: Original


def repeated_rows(x: Tensor, num_copies: int) -> Tensor:
    """The rows of a tensor ``num_copies`` times one after the other."""
    return x.repeat(num_copies, *[1] * (x.dim() - 1))


def mapped(part: Part, fn: Callable[[Tensor], Tensor]) -> Part:
    """A part with a function applied to every tensor, not checked again."""
    result: Any = object.__new__(type(part))
    for name, x in part.columns.items():
        object.__setattr__(result, name, fn(x))
    object.__setattr__(result, "copied", None)
    return result


def repeated(part: Part, num_copies: int) -> Part:
    """The individuals of a part ``num_copies`` times one after the other."""
    result = mapped(part, lambda x: repeated_rows(x, num_copies))
    object.__setattr__(result, "copied", Copies(num_copies, part))
    return result


def are_copies(x: Tensor, num_copies: int) -> bool:
    """Whether a constant tensor consists of equal copies of its first rows, one after the other.

    Example:
        >>> are_copies(torch.tensor([[1.0], [2.0], [1.0], [2.0]]), 2)
        True
    """
    if x.requires_grad or len(x) % num_copies:
        return False
    copies = x.detach().unflatten(0, (num_copies, -1))
    return torch.equal(copies, copies[:1].expand_as(copies))
