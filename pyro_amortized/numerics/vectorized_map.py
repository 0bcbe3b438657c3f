r"""A function of the population at many populations together.

A program costs some milliseconds to run, whatever it computes. ``torch.vmap`` runs it once for many
populations; a program that it cannot run (one that asks a value of a tensor, say) is run once for
each, with the same result.
"""

from collections.abc import Callable

import torch
from torch import Tensor

NUM_CHECKED = 2
Function = Callable[[Tensor], Tensor]


class AtEach:
    r"""Values of a function at every row.

    Args:
        function: Of a vector, shape ``(p,)``, to a tensor; no randomness, no gradient.
        size: Rows that are taken together.

    Example:
        >>> AtEach(lambda x: x.sum(), 2)(torch.arange(6.0).reshape(3, 2))
        tensor([1., 5., 9.])
    """

    def __init__(self, function: Function, size: int) -> None:
        self.function, self.size = function, max(1, size)
        self.together: bool | None = None if self.size > 1 else False

    def __call__(self, vectors: Tensor) -> Tensor:
        """Shape ``(row, *)``."""
        with torch.no_grad():
            return torch.cat([self._some(part) for part in vectors.split(self.size)])

    def _some(self, vectors: Tensor) -> Tensor:
        if self.together is None and len(vectors) > 1:
            self.together = self._agrees(vectors[:NUM_CHECKED])
        if self.together:
            found: Tensor = torch.vmap(self.function)(vectors)
            return found
        return self._loop(vectors)

    def _loop(self, vectors: Tensor) -> Tensor:
        return torch.stack([self.function(vector) for vector in vectors])

    def _agrees(self, vectors: Tensor) -> bool:
        expected = self._loop(vectors)
        try:
            found = torch.vmap(self.function)(vectors)
        except Exception:  # whatever a stranger's program raises when it is traced
            return False
        same_shape = found.shape == expected.shape
        return same_shape and torch.allclose(found, expected, 1e-9, 1e-9, equal_nan=True)
