"""Items that belong to rows, of which some rows have more than one."""

import functools

import torch
from torch import Tensor


class RowGroups:
    r"""Which items belong to each row; the items of a row stand next to each other.

    Args:
        counts: Number of items of each row, at least one, shape ``(row,)``.
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts

    @property
    def is_one_each(self) -> bool:
        """Whether every row has exactly one item."""
        return len(self.rows) == len(self.counts)

    @functools.cached_property
    def rows(self) -> Tensor:
        """The row that each item belongs to, shape ``(item,)``."""
        return torch.arange(len(self.counts)).repeat_interleave(self.counts)

    @functools.cached_property
    def first(self) -> Tensor:
        """The first item of each row, shape ``(row,)``."""
        return self.counts.cumsum(0) - self.counts

    def take(self, rows: Tensor) -> tuple["RowGroups", Tensor]:
        """The groups of some rows, which may be named repeatedly, and their items."""
        taken = RowGroups(self.counts[rows])
        within = torch.arange(len(taken.rows)) - taken.first[taken.rows]
        return taken, self.first[rows][taken.rows] + within

    def padded(self, values: Tensor, fill: float) -> Tensor:
        """Values ``(*, item)`` by row, shape ``(*, row, place)``; the places of rows that have
        fewer items than others are filled.
        """
        place = torch.arange(int(self.counts.max()))
        is_item = place < self.counts.unsqueeze(1)
        item = (self.first.unsqueeze(1) + place).clamp(max=len(self.rows) - 1)
        return values[..., item].masked_fill(~is_item, fill)

    def logsumexp(self, values: Tensor) -> Tensor:
        """Log of the sum over the items of each row of exponentials, ``(*, item)`` to ``(*,
        row)``.
        """
        return values if self.is_one_each else self.padded(values, -torch.inf).logsumexp(-1)
