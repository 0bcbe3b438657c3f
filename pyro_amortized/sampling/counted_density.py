"""What the draws of an individual cost."""

from collections.abc import Callable

import torch
from torch import Tensor


class CountedDensity:
    """A log density that counts for each individual how often it is evaluated.

    Args:
        log_density: Log density of draws ``(draw, row, latent)`` of the given individuals.
        num: Number of individuals.
    """

    def __init__(self, log_density: Callable[[Tensor, Tensor], Tensor], num: int) -> None:
        self._log_density = log_density
        self._evaluations = torch.zeros(num, dtype=torch.long)

    def __call__(self, draws: Tensor, rows: Tensor) -> Tensor:
        """The log density, shape ``(draw, row)``."""
        self._evaluations.index_add_(0, rows, torch.full_like(rows, len(draws)))
        return self._log_density(draws, rows)

    @property
    def evaluations(self) -> Tensor:
        """Number of evaluations, shape ``(individual,)``."""
        return self._evaluations.clone()
