r"""Inference networks: ``flow(context)`` is a distribution.

A value u is carried to a standard normal in three steps, each with a closed-form inverse:

.. math:: v = B^{-1} (u - a), \qquad
          z = e^{s(h)} \odot \big((I + L(h))\, (v - \mu(h))\big), \qquad
          \epsilon = (S_m \circ \dots \circ S_1)(z \mid h),

the fixed a, B standardise the training distribution; a Gaussian head (:math:`\mu, s, L` from the
context h, L strictly lower triangular) takes location, scales and correlations; triangular layers
:math:`S` of rational-quadratic splines shape what is left, dimension by dimension given the ones
before it. A density costs one pass over all dimensions; a draw goes through them one by one, at the
same cost in all.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints
from torch.nn import functional

from .multilayer_perceptron import mlp
from .spline_layer import SplineLayer


class FlowState(NamedTuple):
    """What a flow makes of a context, once for all draws: location, log scales and strictly lower
    triangle of the head, and the context of every spline layer.
    """

    location: Tensor
    log_precision: Tensor
    lower: Tensor
    contexts: list[Tensor]


class ConditionalFlow(nn.Module):
    r"""A conditional invertible network.

    Args:
        num_latent: Number of dimensions.
        num_context: Length of the context.
        num_layers: Number of spline layers; 0 gives a Gaussian.
        width: Width of the hidden layers.
        depth: Number of hidden layers between the context and the head.
        num_bins: Bins of a spline.
        layer_width: Hidden units of a spline layer per dimension.
    """

    def __init__(
        self,
        num_latent: int,
        num_context: int,
        *,
        num_layers: int = 1,
        width: int = 128,
        depth: int = 2,
        num_bins: int = 8,
        layer_width: int = 64,
    ) -> None:
        super().__init__()
        self.settings = {
            "num_layers": num_layers,
            "width": width,
            "depth": depth,
            "num_bins": num_bins,
            "layer_width": layer_width,
        }
        self.num_latent = num_latent
        self.loc: Tensor
        self.scale_tril: Tensor
        self.register_buffer("loc", torch.zeros(num_latent))
        self.register_buffer("scale_tril", torch.eye(num_latent))
        self.trunk = nn.Sequential(mlp([num_context] + [width] * depth), nn.SiLU())
        self.head = nn.Linear(width, num_latent * (num_latent + 3) // 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.layers = nn.ModuleList(
            SplineLayer(num_latent, width, layer_width, num_bins, reverse=j % 2 == 1)
            for j in range(num_layers)
        )

    def forward(self, context: Tensor) -> "FlowDistribution":
        """The distribution for a context of shape ``(*batch, num_context)``."""
        return FlowDistribution(self, context)

    def prepare(self, context: Tensor) -> FlowState:
        """Everything about a context that does not depend on the value."""
        d, hidden = self.num_latent, self.trunk(context)
        location, log_precision, below = self.head(hidden).split([d, d, d * (d - 1) // 2], -1)
        row, column = torch.tril_indices(d, d, -1, device=context.device)
        lower = below.new_zeros(*below.shape[:-1], d, d)
        lower[..., row, column] = below
        contexts = [layer.context(hidden) for layer in self.layers]  # type: ignore[operator]
        return FlowState(location, 8 * torch.tanh(log_precision / 8), lower, contexts)

    def to_base(self, value: Tensor, state: FlowState) -> tuple[Tensor, Tensor]:
        """Carry values, shape ``(*, num_latent)``, to the standard normal; also the log
        Jacobian.
        """
        v = torch.linalg.solve_triangular(
            self.scale_tril.expand(*value.shape[:-2], -1, -1),
            (value - self.loc).transpose(-1, -2),
            upper=False,
        ).transpose(-1, -2)
        centered = v - state.location
        below = (state.lower @ centered.unsqueeze(-1)).squeeze(-1)
        z = (centered + below) * state.log_precision.exp()
        total = state.log_precision.sum(-1) - self.scale_tril.diagonal().log().sum()
        for layer, context in zip(self.layers, state.contexts, strict=True):
            z, log_slope = layer(z, context)
            total = total + log_slope
        return z, total

    def from_base(self, z: Tensor, state: FlowState) -> Tensor:
        """The inverse of :meth:`to_base`."""
        for layer, context in zip(reversed(self.layers), reversed(state.contexts), strict=True):
            z = layer.inverse(z, context)  # type: ignore[operator]
        scaled = (z * (-state.log_precision).exp()).unsqueeze(-1)
        unit = state.lower.expand(*scaled.shape[:-2], -1, -1)
        centered = torch.linalg.solve_triangular(unit, scaled, upper=False, unitriangular=True)
        v = centered.squeeze(-1) + state.location
        return self.loc + functional.linear(v, self.scale_tril)


class FlowDistribution(TorchDistribution):  # type: ignore[misc]
    r"""The distribution that a flow gives for a context.

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

    @property
    def flow_dtype(self) -> torch.dtype:
        """Floating dtype of the network."""
        return self.context.dtype

    def head(self) -> tuple[Tensor, Tensor]:
        """Location and lower triangular scale of the Gaussian that the splines shape, shapes
        ``(*batch, num_latent)`` and ``(*batch, num_latent, num_latent)``.
        """
        state = self._state
        unit = state.lower + torch.eye(self.flow.num_latent).to(state.lower)
        scale = torch.diag_embed((-state.log_precision).exp())
        tril = torch.linalg.solve_triangular(unit, scale, upper=False, unitriangular=True)
        outer = self.flow.scale_tril
        return self.flow.loc + functional.linear(state.location, outer), outer @ tril

    @functools.cached_property
    def _state(self) -> FlowState:
        return self.flow.prepare(self.context)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draws, shape ``(*sample_shape, *batch, num_latent)``."""
        like = self._state.location
        shape = self._extended_shape(sample_shape)
        return self.flow.from_base(
            torch.randn(shape, dtype=like.dtype, device=like.device), self._state
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, shape ``(*sample_shape, *batch)``."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        z, log_abs_det = self.flow.to_base(value.expand(shape), self._state)
        return (
            log_abs_det - 0.5 * (z * z).sum(-1) - 0.5 * self.flow.num_latent * math.log(2 * math.pi)
        )
