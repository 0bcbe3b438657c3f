r"""A Gaussian posterior from a Gaussian prior and a learned Gaussian likelihood.

With :math:`\eta = S^{-1}(u - m)`, whose prior is standard normal, and a likelihood in u with centre
a and precision :math:`\Lambda = G G^\top`, the posterior of :math:`\eta` has the precision and the
mean

.. math:: P = I + S^\top \Lambda S, \qquad \mu = P^{-1} S^\top \Lambda\, (a - m) .

A network that gives G and a, which depend on the data, need not learn how the posterior changes
with m and S: a posterior under any population is then right for a Gaussian likelihood, and close
elsewhere. On theophylline this reduced the loss after 570 steps by 0.12 nats (decision 062).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..numerics.cholesky import strictly_lower
from ..numerics.gaussians import Gaussians
from ..numerics.small_sums import sum_last


@dataclass(frozen=True)
class InformationHeadSettings:
    r"""Limits of the head.

    Args:
        max_log_precision: Largest absolute value of the logarithms of the diagonal of G, in the
            unit of the head, so that an untrained head cannot overflow.
        rounding: Addition to the diagonal of the precision, relative to it and in units of the
            rounding error of its dtype, so that it stays positive definite.
    """

    max_log_precision: float = 8.0
    rounding: float = 16.0


DEFAULTS = InformationHeadSettings()


class Information(NamedTuple):
    r"""A Gaussian of :math:`\eta`: its mean, shape ``(*batch, d)``, and the lower triangular root C
    of its precision :math:`C C^\top`, shape ``(*batch, d, d)``.
    """

    mean: Tensor
    root: Tensor

    @property
    def log_det(self) -> Tensor:
        """Log determinant of C, shape ``(*batch,)``."""
        return sum_last(self.root.diagonal(dim1=-2, dim2=-1).log())

    def standardized(self, eta: Tensor) -> Tensor:
        r""":math:`C^\top (\eta - \mu)`, shape ``(*sample, *batch, d)``."""
        centered = eta - self.mean
        return sum_last(self.root.transpose(-1, -2) * centered.unsqueeze(-2))

    def scaled(self, standard: Tensor) -> Tensor:
        """The inverse of :meth:`standardized`."""
        upper = self.root.transpose(-1, -2).expand(*standard.shape, -1)
        return self.mean + torch.linalg.solve_triangular(
            upper, standard.unsqueeze(-1), upper=True
        ).squeeze(-1)


class InformationHead(nn.Module):
    r"""The last layer of a network that gives :class:`Information`. Its buffers ``center`` and
    ``unit`` say where and how wide the priors are, so that a and G have numbers of usual size.

    Args:
        width: Length of the hidden context.
        num_latent: Number of dimensions.
    """

    def __init__(self, width: int, num_latent: int) -> None:
        super().__init__()
        self.num_latent = num_latent
        self.center: Tensor
        self.unit: Tensor
        self.register_buffer("center", torch.zeros(num_latent))
        self.register_buffer("unit", torch.ones(num_latent))
        self.layer = nn.Linear(width, num_latent * (num_latent + 3) // 2)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, hidden: Tensor, priors: Gaussians) -> Information:
        r"""The Gaussian of each element.

        Args:
            hidden: Hidden context, shape ``(*batch, width)``.
            priors: m and S, batch shape ``(*batch,)``.
        """
        d = self.num_latent
        location, diagonal, below = self.layer(hidden).split([d, d, d * (d - 1) // 2], -1)
        limit = DEFAULTS.max_log_precision
        diagonal = (limit * torch.tanh(diagonal / limit)).exp()
        factor = strictly_lower(below, d) + torch.diag_embed(diagonal)
        root = (priors.scale_tril / self.unit.unsqueeze(-1)).transpose(-1, -2) @ factor
        away = location - (priors.loc - self.center) / self.unit
        score = root @ (factor.transpose(-1, -2) @ away.unsqueeze(-1))
        precision = root @ root.transpose(-1, -2) + torch.eye(d).to(root)
        # In float32 a large information hides the identity.
        rounding = DEFAULTS.rounding * torch.finfo(root.dtype).eps
        addition = torch.diag_embed(rounding * precision.diagonal(dim1=-2, dim2=-1))
        cholesky, info = torch.linalg.cholesky_ex(precision + addition)
        cholesky = torch.where((info == 0)[..., None, None], cholesky, torch.nan)
        mean = torch.cholesky_solve(score, cholesky)
        return Information(mean.squeeze(-1), cholesky)
