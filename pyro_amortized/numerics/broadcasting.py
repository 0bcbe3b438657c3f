"""The shape that shapes are broadcast to."""

from collections.abc import Sequence

import numpy as np
from torch import Size


def broadcast_shape(*shapes: Sequence[int]) -> Size:
    """As :func:`torch.broadcast_shapes`, which imports SymPy when it is first called, a second.

    Raises:
        ValueError: The shapes cannot be broadcast together.

    Example:
        >>> broadcast_shape((3, 1), (5,))
        torch.Size([3, 5])
    """
    return Size(np.broadcast_shapes(*(tuple(shape) for shape in shapes)))
