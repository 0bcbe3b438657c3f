"""Shapes that are broadcast together, without what torch imports for it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Size, Tensor


def broadcast_shape(*shapes: Sequence[int]) -> Size:
    """As :func:`torch.broadcast_shapes`, which imports SymPy when it is first called, a second.

    Raises:
        ValueError: The shapes cannot be broadcast together.

    Example:
        >>> broadcast_shape((3, 1), (5,))
        torch.Size([3, 5])
    """
    return Size(np.broadcast_shapes(*(tuple(shape) for shape in shapes)))


def concatenated(pieces: Sequence[Tensor]) -> Tensor:
    """Tensors ``(*, entry)`` put together along the last dimension, the others broadcast."""
    batch = broadcast_shape(*(piece.shape[:-1] for piece in pieces))
    return torch.cat([piece.expand(*batch, -1) for piece in pieces], -1)


def gathered(values: Tensor, index: Tensor) -> Tensor:
    """Values ``(*, entry)`` at an index ``(*, place)`` of the last dimension, the others broadcast.

    Example:
        >>> gathered(torch.tensor([[1.0, 2.0]]), torch.tensor([[[1, 0, 1]]]))
        tensor([[[2., 1., 2.]]])
    """
    shape = broadcast_shape(values.shape[:-1], index.shape[:-1])
    return values.expand(*shape, -1).gather(-1, index.expand(*shape, -1))
