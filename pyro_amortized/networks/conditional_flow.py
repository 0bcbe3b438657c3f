r"""Inference networks: conditional flows, which give a distribution for every context.

A value u is transformed to a standard normal in three steps, each with a closed-form inverse:

.. math:: v = S^{-1} (u - m), \qquad
          z = e^{s(h)} \odot \big((I + L(h))\, (v - \mu(h))\big), \qquad
          \epsilon = (S_m \circ \dots \circ S_1)(z \mid h).

The mean m and the scale S standardise the values: those of a normal distribution of each value,
for instance its prior, or one pair for all of them. With priors, v is then standardised a second
time, by a Gaussian posterior (:mod:`pyro_amortized.networks.information_head`). A Gaussian head
(:math:`\mu, s, L` from the hidden context h, with L strictly lower triangular) determines
location, scales and correlations. Triangular layers of rational-quadratic splines describe what is
not Gaussian: each dimension is transformed given the context and the dimensions before it. A
density needs one pass over all dimensions. A draw is computed one dimension after the other, at the
same total cost.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from ..numerics.broadcasting import broadcast_shape
from ..numerics.cholesky import factored, strictly_lower
from ..numerics.gaussians import Gaussians
from .information_head import Information, InformationHead
from .multilayer_perceptron import mlp
from .spline_layer import SplineLayer


@dataclass(frozen=True)
class FlowSettings:
    r"""Limits of a flow.

    Args:
        max_log_precision: Largest absolute value of s, the logarithm of a precision of the head in
            standardised units. A posterior that is 3,000 times narrower or wider than the prior is
            inside the limit, and an untrained head cannot overflow.
    """

    max_log_precision: float = 8.0


DEFAULTS = FlowSettings()


class FlowState(NamedTuple):
    """What a flow computes from a context alone, and needs for every density and every draw:
    location, log precisions and strictly lower triangle of the head, the context of every spline
    layer, and the Gaussian of the values of a flow with priors.
    """

    location: Tensor
    log_precision: Tensor
    lower: Tensor
    contexts: list[Tensor]
    information: Information | None = None


@dataclass(frozen=True)
class FlowSizes:
    r"""Sizes of a flow.

    Args:
        num_layers: Number of spline layers; 0 gives a Gaussian.
        width: Width of the hidden layers.
        depth: Number of hidden layers between the context and the head.
        num_bins: Number of bins of a spline.
        layer_width: Number of hidden units of a spline layer per dimension.
    """

    num_layers: int = 1
    width: int = 128
    depth: int = 2
    num_bins: int = 8
    layer_width: int = 64


class ConditionalFlow(nn.Module):
    r"""A conditional flow: an invertible network whose parameters depend on a context.

    Args:
        num_latent: Number of dimensions.
        num_context: Length of the context.
        sizes: Sizes of the network.
        has_priors: Whether m and S are the mean and the scale of the prior of each value, which an
            :class:`~pyro_amortized.networks.information_head.InformationHead` then combines with
            what the context says.
    """

    def __init__(
        self,
        num_latent: int,
        num_context: int,
        sizes: FlowSizes = FlowSizes(),
        has_priors: bool = False,
    ) -> None:
        super().__init__()
        self.settings = {**asdict(sizes), "has_priors": has_priors}
        width = sizes.width
        self.num_latent = num_latent
        self.loc: Tensor
        self.scale_tril: Tensor
        self.register_buffer("loc", torch.zeros(num_latent))
        self.register_buffer("scale_tril", torch.eye(num_latent))
        self.trunk = nn.Sequential(mlp([num_context] + [width] * sizes.depth), nn.SiLU())
        self.head = nn.Linear(width, num_latent * (num_latent + 3) // 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.information = InformationHead(width, num_latent) if has_priors else None
        self.layers = nn.ModuleList(
            SplineLayer(num_latent, width, sizes.layer_width, sizes.num_bins, reverse=j % 2 == 1)
            for j in range(sizes.num_layers)
        )

    def forward(self, context: Tensor, standard: Gaussians | None = None) -> "FlowDistribution":
        r"""The distribution for a context.

        Args:
            context: Shape ``(*batch, num_context)``.
            standard: The m and S that standardise the values, batch shape ``(*batch,)``. Default:
                those of the network, the same for all values.
        """
        return FlowDistribution(self, context, standard)

    @property
    def standard(self) -> Gaussians:
        """The network's own m and S, with an empty batch shape."""
        return Gaussians(self.loc, self.scale_tril)

    def prepare(self, context: Tensor, priors: Gaussians | None = None) -> FlowState:
        r"""Everything that depends on the context and the prior alone.

        Args:
            context: Shape ``(*batch, num_context)``.
            priors: m and S, batch shape ``(*batch,)``; only a flow with priors depends on them.
                Default: those of the network.
        """
        d, hidden = self.num_latent, self.trunk(context)
        information = None
        if self.information is not None:
            information = self.information(hidden, self.standard if priors is None else priors)
        location, log_precision, below = self.head(hidden).split([d, d, d * (d - 1) // 2], -1)
        contexts = [layer.context(hidden) for layer in self.layers]  # type: ignore[operator]
        limit = DEFAULTS.max_log_precision
        return FlowState(
            location,
            limit * torch.tanh(log_precision / limit),
            strictly_lower(below, d),
            contexts,
            information,
        )

    def to_base(self, value: Tensor, state: FlowState) -> tuple[Tensor, Tensor]:
        r"""Transform standardized values v to the standard normal.

        Args:
            value: Shape ``(*, num_latent)``.
            state: From :meth:`prepare`, broadcastable to the values.

        Returns:
            The transformed values, shape of ``value``, and the log absolute determinant of the
            Jacobian, shape ``(*,)``.
        """
        total = state.log_precision.sum(-1)
        if state.information is not None:
            value = state.information.standardized(value)
            total = total + state.information.log_det
        centered = value - state.location
        below = (state.lower @ centered.unsqueeze(-1)).squeeze(-1)
        z = (centered + below) * state.log_precision.exp()
        for layer, context in zip(self.layers, state.contexts, strict=True):
            z, log_slope = layer(z, context)
            total = total + log_slope
        return z, total

    def from_base(self, z: Tensor, state: FlowState) -> tuple[Tensor, Tensor]:
        """The inverse of :meth:`to_base`, and the log absolute determinant of :meth:`to_base` at
        the result.
        """
        total = state.log_precision.sum(-1)
        for layer, context in zip(reversed(self.layers), reversed(state.contexts), strict=True):
            z, log_slope = layer.inverse(z, context)  # type: ignore[operator]
            total = total + log_slope
        scaled = (z * (-state.log_precision).exp()).unsqueeze(-1)
        unit = state.lower.expand(*scaled.shape[:-2], -1, -1)
        centered = torch.linalg.solve_triangular(unit, scaled, upper=False, unitriangular=True)
        v = centered.squeeze(-1) + state.location
        if state.information is not None:
            v = state.information.scaled(v)
            total = total + state.information.log_det
        return v, total


def factored_product(scale: Tensor) -> Tensor:
    """Lower triangular L with L L^T = A A^T for square matrices A of a batch."""
    return factored(scale @ scale.transpose(-1, -2))


class FlowDistribution(TorchDistribution):  # type: ignore[misc]
    r"""The distribution that a flow gives for a context.

    Args:
        flow: The network.
        context: Shape ``(*batch, num_context)``.
        standard: The m and S that standardise the values, batch shape ``(*batch,)``. Default: those
            of the network, the same for all values.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's own declaration)
    has_rsample = True

    def __init__(
        self, flow: ConditionalFlow, context: Tensor, standard: Gaussians | None = None
    ) -> None:
        self.flow, self.context = flow, context
        self.standard = flow.standard if standard is None else standard
        super().__init__(context.shape[:-1], Size([flow.num_latent]), validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """Real vectors: every dimension is unconstrained."""
        return constraints.real_vector

    def expand(self, batch_shape: Size, _instance: None = None) -> "FlowDistribution":
        """The same distribution with a larger batch shape."""
        return self._with(self.context.expand(*batch_shape, -1), lambda x: x.expand(batch_shape))

    def take(self, rows: Tensor) -> "FlowDistribution":
        """The distribution of some rows of the first batch dimension."""
        return self._with(self.context[rows], lambda x: x.take(rows))

    def reshape(self, batch_shape: Size) -> "FlowDistribution":
        """The same distributions with another batch shape of as many elements."""
        return self._with(self.context.reshape(*batch_shape, -1), lambda x: x.reshape(batch_shape))

    def _with(
        self, context: Tensor, function: Callable[[Gaussians], Gaussians]
    ) -> "FlowDistribution":
        """The distribution of another context; the function is applied to m and S where each value
        has its own.
        """
        own = bool(self.standard.batch_shape)
        return FlowDistribution(
            self.flow, context, function(self.standard) if own else self.standard
        )

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
        location = state.location
        if state.information is not None:
            location = state.information.scaled(location)
            upper = state.information.root.transpose(-1, -2)
            tril = factored_product(torch.linalg.solve_triangular(upper, tril, upper=True))
        return self.standard.scaled(location), self.standard.scale_tril @ tril

    @functools.cached_property
    def _state(self) -> FlowState:
        return self.flow.prepare(self.context, self.standard)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draws, shape ``(*sample_shape, *batch, num_latent)``."""
        noise = self._noise(sample_shape)
        return self.standard.scaled(self.flow.from_base(noise, self._state)[0])

    def _noise(self, sample_shape: Size) -> Tensor:
        like = self._state.location
        shape = self._extended_shape(sample_shape)
        return torch.randn(shape, dtype=like.dtype, device=like.device)

    def sample_with_log_prob(self, sample_shape: Size) -> tuple[Tensor, Tensor]:
        """Draws and their log density, at half the cost of both apart."""
        noise = self._noise(sample_shape)
        standard, log_abs_det = self.flow.from_base(noise, self._state)
        log_abs_det = log_abs_det - self.standard.log_det
        squares = (noise * noise).sum(-1)
        log_prob = log_abs_det - 0.5 * squares - 0.5 * self.flow.num_latent * math.log(2 * math.pi)
        return self.standard.scaled(standard), log_prob

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, shape ``(*sample_shape, *batch)``."""
        shape = broadcast_shape(value.shape, self.batch_shape + self.event_shape)
        standard = self.standard.standardized(value.expand(shape))
        z, log_abs_det = self.flow.to_base(standard, self._state)
        log_abs_det = log_abs_det - self.standard.log_det
        return (
            log_abs_det - 0.5 * (z * z).sum(-1) - 0.5 * self.flow.num_latent * math.log(2 * math.pi)
        )
