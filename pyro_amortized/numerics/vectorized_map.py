r"""A function of a vector, evaluated at many vectors in one call.

One run of a Pyro model takes some milliseconds, whatever it computes. ``torch.vmap`` runs it once
for many population vectors. A model that ``vmap`` cannot run, for example because it reads the
value of a tensor, is run once per vector with the same result.
"""

from collections.abc import Callable

import torch
from torch import Tensor

NUM_CHECKED = 2  # vectors at which ``vmap`` is compared with single calls; two differ in all inputs
# Relative and absolute difference that another order of operations may make.
ROUNDING = 1e-9
Function = Callable[[Tensor], Tensor]


class AtEach:
    r"""The values of a function at every row of a matrix.

    Args:
        function: Maps a vector of shape ``(p,)`` to a tensor, without randomness.
        size: Largest number of rows in one call.
        keeps_gradients: Whether the values are differentiable in the rows.

    Example:
        >>> AtEach(lambda x: x.sum(), 2)(torch.arange(6.0).reshape(3, 2))
        tensor([1., 5., 9.])
    """

    def __init__(self, function: Function, size: int, keeps_gradients: bool = False) -> None:
        self.function, self.size = function, max(1, size)
        self.keeps_gradients = keeps_gradients
        self.is_vectorized: bool | None = None if self.size > 1 else False

    def __call__(self, vectors: Tensor) -> Tensor:
        """The values at the rows of ``vectors``, shape ``(row, *)``."""
        with torch.set_grad_enabled(self.keeps_gradients and torch.is_grad_enabled()):
            return torch.cat([self._values(part) for part in vectors.split(self.size)])

    def _values(self, vectors: Tensor) -> Tensor:
        if self.is_vectorized is None and len(vectors) > 1:
            self.is_vectorized = self._agrees(vectors[:NUM_CHECKED])
        if self.is_vectorized:
            values: Tensor = torch.vmap(self.function)(vectors)
            return values
        return self._loop(vectors)

    def _loop(self, vectors: Tensor) -> Tensor:
        return torch.stack([self.function(vector) for vector in vectors])

    def _agrees(self, vectors: Tensor) -> bool:
        expected = self._loop(vectors)
        try:
            values = torch.vmap(self.function)(vectors)
        except Exception:  # a user's model may raise anything when vmap runs it
            return False
        same_shape = values.shape == expected.shape
        return same_shape and torch.allclose(values, expected, ROUNDING, ROUNDING, equal_nan=True)
