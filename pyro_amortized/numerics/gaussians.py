r"""Normal distributions of vectors, one for each index of a batch."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Size, Tensor

from .cholesky import inverse_factor
from .small_sums import sum_last


class Gaussians(NamedTuple):
    r"""Normal distributions :math:`\mathcal N(m, S S^\top)`.

    ``loc`` holds the means m, shape ``(*batch, d)``, and ``scale_tril`` the lower triangular
    scales S, shape ``(*batch, d, d)``.

    Example:
        >>> one = Gaussians(torch.tensor([[1.0, 0.0]]), 2 * torch.eye(2).unsqueeze(0))
        >>> one.standardized(torch.tensor([[3.0, 0.0]]))
        tensor([[1., 0.]])
    """

    loc: Tensor
    scale_tril: Tensor

    @property
    def batch_shape(self) -> Size:
        """Shape of the batch."""
        return self.loc.shape[:-1]

    @property
    def standard_deviations(self) -> Tensor:
        """Standard deviation of each coordinate, shape ``(*batch, d)``."""
        return sum_last(self.scale_tril.pow(2)).sqrt()

    @property
    def log_det(self) -> Tensor:
        """Log determinant of S, shape ``(*batch,)``."""
        return sum_last(self.scale_tril.diagonal(dim1=-2, dim2=-1).log())

    def map(self, function: Callable[[Tensor], Tensor]) -> "Gaussians":
        """A function, for instance a conversion of the dtype, applied to means and scales."""
        return Gaussians(function(self.loc), function(self.scale_tril))

    def take(self, rows: Tensor | slice) -> "Gaussians":
        """Some rows of the first dimension of the batch."""
        return Gaussians(self.loc[rows], self.scale_tril[rows])

    def expand(self, batch_shape: Size) -> "Gaussians":
        """The same distributions with a larger batch."""
        d = self.loc.shape[-1]
        return Gaussians(
            self.loc.expand(*batch_shape, d), self.scale_tril.expand(*batch_shape, d, d)
        )

    def reshape(self, batch_shape: Size) -> "Gaussians":
        """The same distributions with another shape of the batch."""
        d = self.loc.shape[-1]
        return Gaussians(
            self.loc.reshape(*batch_shape, d), self.scale_tril.reshape(*batch_shape, d, d)
        )

    def correlation_factor(self) -> Tensor:
        """Cholesky factors of the correlation matrices, shape ``(*batch, d, d)``."""
        return self.scale_tril / self.standard_deviations.unsqueeze(-1)

    def standardized(self, value: Tensor) -> Tensor:
        """:math:`S^{-1} (u - m)` of values u of shape ``(*sample, *batch, d)``, same shape."""
        centered, inverse = value - self.loc, inverse_factor(self.scale_tril)
        if inverse.dim() == 2:
            return centered @ inverse.T
        return sum_last(inverse * centered.unsqueeze(-2))

    def scaled(self, standard: Tensor) -> Tensor:
        """The inverse of :meth:`standardized`."""
        if self.scale_tril.dim() == 2:
            return self.loc + standard @ self.scale_tril.T
        return self.loc + sum_last(self.scale_tril * standard.unsqueeze(-2))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of values of shape ``(*sample, *batch, d)``, shape ``(*sample, *batch)``."""
        d = self.loc.shape[-1]
        squares = sum_last(self.standardized(value).pow(2))
        return -0.5 * squares - self.log_det - 0.5 * d * math.log(2 * math.pi)

    def draw(self, num_draws: int, generator: Generator) -> Tensor:
        """Draws, shape ``(draw, *batch, d)``."""
        shape = (num_draws, *self.loc.shape)
        noise = torch.randn(shape, generator=generator, dtype=self.loc.dtype)
        return self.scaled(noise)
