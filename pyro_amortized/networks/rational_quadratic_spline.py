r"""The monotone rational-quadratic spline, with its gradient written out.

On bin j of a spline with knots :math:`(x_j, y_j)` and derivatives :math:`d_j`, with
:math:`t = (x - x_j) / w_j` and :math:`s = h_j / w_j` for the width :math:`w_j` and the height
:math:`h_j` of the bin,

.. math:: y = y_j + h_j \frac{s t^2 + d_j t (1 - t)}{s + (d_j + d_{j+1} - 2 s)\, t (1 - t)}.

The spline is strictly increasing and has a closed-form inverse. Outside :math:`[-5, 5]` it is the
identity. Value, derivative and gradient are one autograd function: composed of single operations,
autograd records about 150 of them for every call, and at the sizes of a training step (a few
thousand numbers) recording them took most of the time.

References:
    Gregory and Delbourgo (1982), Piecewise rational quadratic interpolation to monotonic data;
    Durkan et al. (2019), Neural spline flows.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


@dataclass(frozen=True)
class SplineSettings:
    r"""Limits of a spline.

    Args:
        bound: Half the length of the interval outside which the spline is the identity. A standard
            normal is outside with probability 6e-7.
        min_size: Smallest width and height of a bin, as a share of the interval, so that no bin has
            a slope that is not finite.
        min_slope: Smallest derivative at a knot, so that the spline is strictly increasing.
    """

    bound: float = 5.0
    min_size: float = 1e-3
    min_slope: float = 1e-3


DEFAULTS = SplineSettings()
BOUND, MIN_SIZE, MIN_SLOPE = DEFAULTS.bound, DEFAULTS.min_size, DEFAULTS.min_slope
UNIT_SLOPE = math.log(math.expm1(1.0 - MIN_SLOPE))  # raw parameters 0 give a derivative of 1


def num_parameters(num_bins: int) -> int:
    """Number of parameters of one spline: widths, heights and derivatives at the inner knots."""
    return 3 * num_bins - 1


class _Bin(NamedTuple):
    """The bin of every point: its number, left knot, sizes and derivatives, and the shares of all
    bins in the interval (widths and heights).
    """

    shares: Tensor
    number: Tensor
    left: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor
    raw_slopes: Tensor
    slopes: Tensor


def _find_bin(x: Tensor, raw: Tensor, axis: int) -> _Bin:
    """The bin that contains ``x`` on the horizontal (``axis`` 0) or vertical (1) axis. Parameters
    that several points share are broadcast after the bins are known.
    """
    num_bins = (raw.shape[-1] + 1) // 3
    shares = raw[..., : 2 * num_bins].unflatten(-1, (2, num_bins)).softmax(-1)
    sizes = shares * (2 * BOUND * (1 - MIN_SIZE * num_bins)) + 2 * BOUND * MIN_SIZE
    ends = sizes.cumsum(-1) - BOUND
    index = (x.unsqueeze(-1) >= ends[..., axis, :-1]).sum(-1, keepdim=True)
    both = index.unsqueeze(-2).expand(*x.shape, 2, 1)
    size, end = (of.expand(*x.shape, 2, -1).gather(-1, both).squeeze(-1) for of in (sizes, ends))
    left, bottom = (end - size).unbind(-1)
    width, height = size.unbind(-1)
    padded = functional.pad(raw[..., 2 * num_bins :], (1, 1)) + UNIT_SLOPE
    raw_slopes = padded.expand(*x.shape, -1).gather(-1, torch.cat([index, index + 1], -1))
    slopes = functional.softplus(raw_slopes) + MIN_SLOPE
    return _Bin(shares, index, left, bottom, width, height, raw_slopes, slopes)


class _Forward(torch.autograd.Function):
    """Value and log derivative, with their gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.abs() < BOUND
        bins = _find_bin(torch.where(inside, x, 0.0), raw, 0)
        first, second = bins.slopes.unbind(-1)
        slope = bins.height / bins.width
        t = (torch.where(inside, x, bins.left) - bins.left) / bins.width
        o = 1 - t
        product = t * o
        bend = first + second - 2 * slope
        below = slope + bend * product
        ratio = t * (slope * t + first * o) / below
        inner = second * t * t + 2 * slope * product + first * o * o
        y = torch.where(inside, bins.bottom + bins.height * ratio, x)
        log_slope = torch.where(inside, 2 * (slope / below).log() + inner.log(), 0.0)
        ctx.save_for_backward(
            *(inside, bins.shares, bins.number, bins.width, bins.height, bins.raw_slopes),
            *(first, second, slope, t, bend, below, ratio, inner),
        )
        return y, log_slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        inside, shares, index, width, height, raw_slopes, *rest = ctx.saved_tensors
        first, second, slope, t, bend, below, ratio, inner = rest
        of_y, of_log = (torch.where(inside, g, 0.0) for g in gradients)
        o = 1 - t
        product, m = t * o, o - t
        # Derivatives of y and of the log slope with respect to (t, slope, first, second), each
        # without its common divisor.
        a, b, c = of_y * height / below, of_log / inner, 2 * of_log / below
        by_t = a * (2 * slope * t + first * m - ratio * bend * m) - c * bend * m
        by_t = by_t + 2 * b * (second * t + slope * m - first * o)
        by_slope = a * (t * t - ratio * (1 - 2 * product)) + 2 * of_log / slope
        by_slope = by_slope + 2 * b * product - c * (1 - 2 * product)
        common = -(a * ratio + c) * product
        by_first, by_second = common + a * product + b * o * o, common + b * t * t
        # By the chain rule, with respect to x and to the position and the sizes of the bin.
        by_x, share = by_t / width, by_slope / width
        by_height, by_width = of_y * ratio + share, -(share * slope + by_x * t)
        by_sizes = _spread(index, (-by_x, of_y), (by_width, by_height), shares.shape[-1])
        weighted = shares * by_sizes
        scale = 2 * BOUND * (1 - MIN_SIZE * shares.shape[-1])
        by_raw = (weighted - shares * weighted.sum(-1, keepdim=True)) * scale
        by_slopes = torch.stack([by_first, by_second], -1) * raw_slopes.sigmoid()
        inner_slopes = by_slopes.new_zeros(*by_slopes.shape[:-1], shares.shape[-1] + 1)
        inner_slopes.scatter_(-1, torch.cat([index, index + 1], -1), by_slopes)
        parts = [by_raw.flatten(-2), inner_slopes[..., 1:-1]]
        return torch.where(inside, by_x, gradients[0]), torch.cat(parts, -1)


def _spread(
    index: Tensor, before: tuple[Tensor, Tensor], here: tuple[Tensor, Tensor], num_bins: int
) -> Tensor:
    """Gradient with respect to the sizes of all bins: those before the bin of the point shift that
    bin (``before``), and its own size stretches it (``here``).
    """
    bins = torch.arange(num_bins, device=index.device)
    below, at = (bins < index).unsqueeze(-2), (bins == index).unsqueeze(-2)
    shift, stretch = (torch.stack(pair, -1).unsqueeze(-1) for pair in (before, here))
    return torch.where(below, shift, torch.where(at, stretch, 0.0))


def spline(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    r"""Value and log derivative of a spline.

    Args:
        x: Points, any shape.
        raw: Unconstrained parameters of the spline of every point, shape
            ``(*x.shape, 3 * num_bins - 1)``. If all are zero, the spline is the identity.

    Returns:
        Value and log derivative, shape of ``x``. They can be differentiated once.

    Example:
        >>> y, log_slope = spline(torch.tensor([-7.0, 0.3]), torch.zeros(2, 23))
        >>> torch.allclose(y, torch.tensor([-7.0, 0.3])), bool(log_slope.abs().max() < 1e-5)
        (True, True)
    """
    y, log_slope = _Forward.apply(x, raw)  # type: ignore[no-untyped-call]
    return y, log_slope


def inverse_spline(y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    r"""The point whose :func:`spline` is ``y``; differentiable by autograd.

    Args:
        y: Values, any shape.
        raw: Unconstrained parameters of the spline of every value, as of :func:`spline`, or with
            leading dimensions that broadcast to those of ``y``.

    Returns:
        The point, and the log derivative of the spline there; shape of ``y`` both.
    """
    inside = y.abs() < BOUND
    bins = _find_bin(torch.where(inside, y, 0.0), raw, 1)
    first, second = bins.slopes.unbind(-1)
    slope = bins.height / bins.width
    rise = torch.where(inside, y, bins.bottom) - bins.bottom
    curve = first + second - 2 * slope
    bend = rise * curve
    # t is the root of a t^2 + b t = slope * rise in [0, 1], in the form without cancellation.
    a = bins.height * (slope - first) + bend
    b = bins.height * first - bend
    root = (b * b + 4 * a * slope * rise).clamp(min=0).sqrt()
    t = 2 * slope * rise / (b + root)
    o = 1 - t
    inner = second * t * t + 2 * slope * t * o + first * o * o
    log_slope = 2 * (slope / (slope + curve * t * o)).log() + inner.log()
    x = torch.where(inside, bins.left + t * bins.width, y)
    return x, torch.where(inside, log_slope, 0.0)
