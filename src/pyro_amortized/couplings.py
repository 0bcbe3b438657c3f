r"""The flow of version 0.1: two spline couplings behind an affine head. Kept so that guides saved
by that version load and draw as they did; new guides use :mod:`pyro_amortized.flows`.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .flows import FlowDistribution, FlowState
from .networks import mlp

BOUND, SLOPE = 5.0, math.log(1e-3)


class _Knots:
    """Knots and derivatives of a spline from raw numbers, as that version had them."""

    def __init__(self, raw: Tensor, num_bins: int) -> None:
        widths, heights, slopes = raw.split([num_bins, num_bins, num_bins - 1], -1)
        self.x, self.y = self._ends(widths), self._ends(heights)
        bounded = functional.pad(slopes / (1 + (slopes / SLOPE).abs()), (1, 1))
        self.slopes = bounded.exp()

    @staticmethod
    def _ends(raw: Tensor) -> Tensor:
        shares = (raw / (1 + (2 * raw / SLOPE).abs())).softmax(-1)
        return BOUND * (2 * functional.pad(shares, (1, 0)).cumsum(-1) - 1)

    def bin(self, value: Tensor, along: Tensor) -> tuple[Tensor, ...]:
        """Left, bottom, width, height and both derivatives of the bin of every value."""
        index = (value.unsqueeze(-1) >= along[..., 1:-1]).sum(-1, keepdim=True)

        def at(x: Tensor, step: int) -> Tensor:
            return x.gather(-1, index + step).squeeze(-1)

        left, bottom = at(self.x, 0), at(self.y, 0)
        sizes = at(self.x, 1) - left, at(self.y, 1) - bottom
        return left, bottom, *sizes, at(self.slopes, 0), at(self.slopes, 1)


class SplineCoupling(nn.Module):
    """Some dimensions are warped, given the others and the context."""

    def __init__(
        self, transformed: list[int], num_latent: int, num_context: int, width: int, num_bins: int
    ) -> None:
        super().__init__()
        kept = [j for j in range(num_latent) if j not in transformed]
        self.transformed: Tensor
        self.kept: Tensor
        self.register_buffer("transformed", torch.tensor(transformed), persistent=False)
        self.register_buffer("kept", torch.tensor(kept, dtype=torch.long), persistent=False)
        self.num_bins = num_bins
        sizes = [len(kept) + num_context, width, width, len(transformed) * (3 * num_bins - 1)]
        self.hyper = mlp(sizes)

    def _knots(self, x: Tensor, context: Tensor) -> _Knots:
        given = torch.cat([x[..., self.kept], context.expand(*x.shape[:-1], -1)], -1)
        raw = self.hyper(given).unflatten(-1, (len(self.transformed), 3 * self.num_bins - 1))
        return _Knots(raw, self.num_bins)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Towards the base, and the log Jacobian."""
        knots, value = self._knots(x, context), x[..., self.transformed]
        inside = value.abs() < BOUND
        left, bottom, width, height, first, second = knots.bin(value, knots.x)
        t, slope = torch.where(inside, (value - left) / width, 0.0), height / width
        product = t * (1 - t)
        below = slope + (first + second - 2 * slope) * product
        y = bottom + height * (slope * t * t + first * product) / below
        inner = second * t * t + 2 * slope * product + first * (1 - t) ** 2
        log_slope = torch.where(inside, 2 * (slope / below).log() + inner.log(), 0.0)
        return x.index_copy(-1, self.transformed, torch.where(inside, y, value)), log_slope.sum(-1)

    def inverse(self, y: Tensor, context: Tensor) -> Tensor:
        """From the base."""
        knots, value = self._knots(y, context), y[..., self.transformed]
        inside = value.abs() < BOUND
        left, bottom, width, height, first, second = knots.bin(value, knots.y)
        slope, rise = height / width, torch.where(inside, value - bottom, 0.0)
        bent = rise * (first + second - 2 * slope)
        a, b = height * (slope - first) + bent, height * first - bent
        t = 2 * slope * rise / (b + (b * b + 4 * a * slope * rise).clamp(min=0).sqrt())
        x = torch.where(inside, left + t * width, value)
        return y.index_copy(-1, self.transformed, x)


class CouplingFlow(nn.Module):
    """The flow of version 0.1; arguments as then."""

    def __init__(
        self, num_latent: int, num_context: int, num_couplings: int, width: int, num_bins: int
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

    def forward(self, context: Tensor) -> FlowDistribution:
        """The distribution for a context."""
        return FlowDistribution(self, context)

    def prepare(self, context: Tensor) -> FlowState:
        """Location, log scales and lower triangle of the head; the context for the couplings."""
        d = self.num_latent
        location, log_scale, below = self.head(context).split([d, d, d * (d - 1) // 2], -1)
        row, column = torch.tril_indices(d, d, -1, device=context.device)
        log_scale = 8 * torch.tanh(log_scale / 8)
        lower = below.new_zeros(*below.shape[:-1], d, d)
        lower[..., row, column] = below * log_scale.exp()[..., row]
        lower = lower + torch.diag_embed(log_scale.exp())
        return FlowState(location, -log_scale, lower, [context])

    def to_base(self, value: Tensor, state: FlowState) -> tuple[Tensor, Tensor]:
        """Carry values to the standard normal; also the log Jacobian."""
        scale = self.scale_tril @ state.lower
        location = self.loc + functional.linear(state.location, self.scale_tril)
        centered = (value - location).unsqueeze(-1)
        z = torch.linalg.solve_triangular(
            scale.expand(*centered.shape[:-2], -1, -1), centered, upper=False
        ).squeeze(-1)
        total = state.log_precision.sum(-1) - self.scale_tril.diagonal().log().sum()
        for coupling in self.couplings:
            z, log_abs_det = coupling(z, state.contexts[0])
            total = total + log_abs_det
        return z, total

    def from_base(self, z: Tensor, state: FlowState) -> Tensor:
        """The inverse of :meth:`to_base`."""
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z, state.contexts[0])  # type: ignore[operator]
        v = state.location + (state.lower @ z.unsqueeze(-1)).squeeze(-1)
        return self.loc + functional.linear(v, self.scale_tril)


def _alternating(num_latent: int, j: int) -> list[int]:
    """Dimensions that coupling j warps: odd and even ones in turn, then the two halves in turn."""
    if num_latent == 1:
        return [0]
    if (j // 2) % 2 == 0:
        return [d for d in range(num_latent) if d % 2 == j % 2]
    half = num_latent // 2
    return list(range(half)) if j % 2 == 0 else list(range(half, num_latent))
