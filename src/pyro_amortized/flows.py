r"""Inference networks: ``flow(context)`` is a distribution.

A draw is :math:`u = a + B\,(\mu(h) + L(h)\, z)` with
:math:`z = (S_1 \circ \dots \circ S_m)(\epsilon \mid h)`,
:math:`\epsilon \sim \mathcal N(0, I)`: rational-quadratic spline couplings :math:`S` shape what is
not Gaussian, a triangular affine head (:math:`\mu, L` from the context h) does the rest, and the
fixed a, B standardise the training distribution. zuko supplies the spline.
"""

import functools
import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from .networks import mlp


def _import_spline() -> Any:
    """Zuko switches torch's validation default off when it is imported; put it back."""
    found = Distribution._validate_args, Distribution.arg_constraints
    try:
        from zuko.transforms import MonotonicRQSTransform
    finally:
        Distribution._validate_args = found[0]
        Distribution.arg_constraints = found[1]  # type: ignore[method-assign]
    return MonotonicRQSTransform


MonotonicRQSTransform = _import_spline()


class SplineCoupling(nn.Module):
    r"""One rational-quadratic spline coupling: some dimensions are warped, given the others and the
    context.

    Args:
        transformed: Dimensions that are warped; the others stay and condition them.
        num_latent: Number of dimensions.
        num_context: Length of the context.
        width: Width of the hidden layers.
        num_bins: Bins of the spline, on [-5, 5]; outside it is the identity.

    References:
        Durkan et al. (2019), Neural spline flows.
    """

    def __init__(
        self,
        transformed: list[int],
        num_latent: int,
        num_context: int,
        width: int = 128,
        num_bins: int = 8,
    ) -> None:
        super().__init__()
        kept = [j for j in range(num_latent) if j not in transformed]
        self.transformed: Tensor
        self.kept: Tensor
        self.register_buffer("transformed", torch.tensor(transformed), persistent=False)
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long), persistent=False)
        self.num_bins = num_bins
        self.hyper = mlp(
            [len(kept) + num_context, width, width, len(transformed) * (3 * num_bins - 1)]
        )
        last = self.hyper[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def spline(self, x: Tensor, context: Tensor) -> Any:
        """The spline that the untouched dimensions of ``x`` and the context ask for."""
        raw = self.hyper(torch.cat([x[..., self.kept], context.expand(*x.shape[:-1], -1)], -1))
        raw = raw.unflatten(-1, (len(self.transformed), 3 * self.num_bins - 1))
        return MonotonicRQSTransform(
            *raw.split([self.num_bins, self.num_bins, self.num_bins - 1], -1)
        )

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Towards the base: the warped ``x`` and the log Jacobian."""
        y, log_abs_det = self.spline(x, context).call_and_ladj(x[..., self.transformed])
        return x.index_copy(-1, self.transformed, y), log_abs_det.sum(-1)

    def inverse(self, y: Tensor, context: Tensor) -> Tensor:
        """From the base: the inverse of :meth:`forward`."""
        x = self.spline(y, context).inv(y[..., self.transformed])
        return y.index_copy(-1, self.transformed, x)


class ConditionalFlow(nn.Module):
    r"""A conditional invertible network.

    Args:
        num_latent: Number of dimensions.
        num_context: Length of the context.
        num_couplings: Number of spline couplings.
        width: Width of the hidden layers.
        num_bins: Bins of a spline.
    """

    def __init__(
        self,
        num_latent: int,
        num_context: int,
        num_couplings: int = 2,
        width: int = 128,
        num_bins: int = 8,
    ) -> None:
        super().__init__()
        self.settings = {"num_couplings": num_couplings, "width": width, "num_bins": num_bins}
        self.num_latent = num_latent
        self.loc: Tensor
        self.scale_tril: Tensor
        self.register_buffer("loc", torch.zeros(num_latent))
        self.register_buffer("scale_tril", torch.eye(num_latent))
        self.head = mlp([num_context, width, width, num_latent * (num_latent + 3) // 2])
        self.couplings = nn.ModuleList(
            SplineCoupling(_alternating(num_latent, j), num_latent, num_context, width, num_bins)
            for j in range(num_couplings if num_latent > 1 else min(num_couplings, 1))
        )

    def forward(self, context: Tensor) -> "FlowDistribution":
        """The distribution for a context of shape ``(*batch, num_context)``."""
        return FlowDistribution(self, context)

    def affine(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Location and lower triangular scale of the head, standardisation included."""
        d = self.num_latent
        location, log_diagonal, below = self.head(context).split([d, d, d * (d - 1) // 2], -1)
        log_diagonal = 8 * torch.tanh(log_diagonal / 8)
        scale = torch.diag_embed(log_diagonal.exp())
        if d > 1:
            row, column = torch.tril_indices(d, d, -1, device=context.device)
            lower = torch.zeros_like(scale)
            lower[..., row, column] = below * log_diagonal.exp()[..., row]
            scale = scale + lower
        location = self.loc + (self.scale_tril @ location.unsqueeze(-1)).squeeze(-1)
        return location, self.scale_tril @ scale


class FlowDistribution(TorchDistribution):  # type: ignore[misc]
    r"""The distribution that a :class:`ConditionalFlow` gives for a context.

    Args:
        flow: The network.
        context: Shape ``(*batch, num_context)``.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's own declaration)
    has_rsample = True

    def __init__(self, flow: ConditionalFlow, context: Tensor) -> None:
        self.flow, self.context = flow, context
        super().__init__(context.shape[:-1], Size([flow.num_latent]), validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """Every dimension is unconstrained."""
        return constraints.real_vector

    def expand(self, batch_shape: Size, _instance: None = None) -> "FlowDistribution":
        """The same distribution with a larger batch."""
        return FlowDistribution(self.flow, self.context.expand(*batch_shape, -1))

    def take(self, rows: Tensor) -> "FlowDistribution":
        """The distribution of some rows of the first batch dimension."""
        return FlowDistribution(self.flow, self.context[rows])

    @functools.cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        return self.flow.affine(self.context)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draws, shape ``(*sample_shape, *batch, num_latent)``."""
        location, scale = self._affine
        z = torch.randn(
            self._extended_shape(sample_shape), dtype=location.dtype, device=location.device
        )
        for coupling in reversed(self.flow.couplings):
            z = coupling.inverse(z, self.context)  # type: ignore[operator]
        return location + (scale @ z.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, shape ``(*sample_shape, *batch)``."""
        location, scale = self._affine
        centered = (value - location).unsqueeze(-1)
        z = torch.linalg.solve_triangular(
            scale.expand(*centered.shape[:-2], -1, -1), centered, upper=False
        ).squeeze(-1)
        total = -scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        for coupling in self.flow.couplings:
            z, log_abs_det = coupling(z, self.context)
            total = total + log_abs_det
        return total - 0.5 * (z * z).sum(-1) - 0.5 * self.flow.num_latent * math.log(2 * math.pi)


def _alternating(num_latent: int, j: int) -> list[int]:
    """Dimensions that coupling j warps: odd and even ones in turn, then the two halves in turn."""
    if num_latent == 1:
        return [0]
    if (j // 2) % 2 == 0:
        return [d for d in range(num_latent) if d % 2 == j % 2]
    half = num_latent // 2
    return list(range(half)) if j % 2 == 0 else list(range(half, num_latent))
