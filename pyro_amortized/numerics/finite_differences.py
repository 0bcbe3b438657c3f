r"""Gradients and Hessians by central differences."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .weighted_regression import regression


def expansion(
    function: Callable[[Sequence[Tensor]], list[Tensor]], steps: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Gradient and Hessian at zero by central differences.

    Both are zero where the value or a difference is not finite.

    Args:
        function: Gives the values at some points of shape ``(p,)``; all values have one shape.
        steps: Step in each coordinate, shape ``(p,)``.
        value: Values at zero.

    Returns:
        Shapes ``(*, p)`` and ``(*, p, p)``.

    Example:
        >>> gradient, hessian = expansion(
        ...     lambda points: [x[0] + x[0] * x[1] for x in points],
        ...     torch.ones(2), torch.zeros(()))
        >>> gradient, hessian
        (tensor([1., 0.]), tensor([[0., 1.],
                [1., 0.]]))
    """
    p, shifts = len(steps), torch.diag(steps)
    pairs = [(a, b) for a in range(p) for b in range(a)]
    corners = [shifts[a] + shifts[b] for a, b in pairs]
    around = function([*shifts, *-shifts, *corners, *(-x for x in corners)])
    ahead, behind = around[:p], around[p : 2 * p]
    both_ahead, both_behind = around[2 * p : 2 * p + len(pairs)], around[2 * p + len(pairs) :]
    gradient = value.new_zeros(*value.shape, p)
    hessian = value.new_zeros(*value.shape, p, p)
    for a in range(p):
        gradient[..., a] = (ahead[a] - behind[a]) / (2 * steps[a])
        hessian[..., a, a] = (ahead[a] - 2 * value + behind[a]) / steps[a] ** 2
    # Both corners: one alone leaves an error of first order in the steps.
    for (a, b), corner, opposite in zip(pairs, both_ahead, both_behind, strict=True):
        curved = hessian[..., a, a] * steps[a] ** 2 + hessian[..., b, b] * steps[b] ** 2
        rest = (corner + opposite) / 2 - value - curved / 2
        hessian[..., a, b] = hessian[..., b, a] = rest / (steps[a] * steps[b])
    finite = gradient.isfinite().all(-1) & hessian.isfinite().all(-1).all(-1) & value.isfinite()
    gradient[~finite], hessian[~finite] = 0.0, 0.0
    return gradient, hessian


def averaged_expansion(
    function: Callable[[Sequence[Tensor]], list[Tensor]],
    steps: Tensor,
    value: Tensor,
    draws: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Gradient of every draw at zero, and the average of the Hessians of all draws.

    The first coordinates are moves of the draws themselves. The mixed derivatives in one of them
    are the slopes of the gradient over the draws: for normal draws the regression gives the
    expectation of the Hessian (Stein's identity). The number of points is therefore proportional
    to that of these coordinates, not to its square.

    Args:
        function: Gives the values at some points of shape ``(p,)``; all values have the shape
            ``(draw, individual)``.
        steps: Step in each coordinate, shape ``(p,)``.
        value: Values at zero.
        draws: The draws in the first coordinates, shape ``(draw, individual, latent)``.
        weights: Normalised weights of the draws, shape ``(draw, individual)``.

    Returns:
        Shapes ``(draw, individual, p)``, zero where a difference is not finite, and ``(1,
        individual, p, p)``.
    """
    p, d, shifts = len(steps), draws.shape[-1], torch.diag(steps)
    pairs = [(a, b) for a in range(d, p) for b in range(d, a)]
    corners = [shifts[a] + shifts[b] for a, b in pairs]
    around = function([*shifts, *-shifts, *corners, *(-x for x in corners)])
    ahead, behind = (torch.stack(x, -1) for x in (around[:p], around[p : 2 * p]))
    gradient = (ahead - behind) / (2 * steps)
    curved = ahead - 2 * value.unsqueeze(-1) + behind  # times the squares of the steps
    finite = gradient.isfinite().all(-1) & curved.isfinite().all(-1) & value.isfinite()
    gradient = gradient.masked_fill(~finite.unsqueeze(-1), 0.0)
    weights = weights.masked_fill(~finite, 0.0)
    weights = weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)

    def average(x: Tensor) -> Tensor:
        return torch.where(weights > 0, weights * x, 0.0).sum(0)

    slopes = regression(draws, gradient, weights).nan_to_num(0.0)
    hessian = slopes.new_zeros(slopes.shape[0], p, p)
    hessian[:, :d] = slopes
    hessian[:, :d, :d] = (slopes[..., :d] + slopes[..., :d].transpose(1, 2)) / 2
    hessian[:, d:, :d] = slopes[..., d:].transpose(1, 2)
    for a in range(p):
        hessian[:, a, a] = average(curved[..., a]) / steps[a] ** 2
    both_ahead, both_behind = around[2 * p : 2 * p + len(pairs)], around[2 * p + len(pairs) :]
    for (a, b), corner, opposite in zip(pairs, both_ahead, both_behind, strict=True):
        rest = (corner + opposite) / 2 - value - (curved[..., a] + curved[..., b]) / 2
        hessian[:, a, b] = hessian[:, b, a] = average(rest) / (steps[a] * steps[b])
    return gradient, hessian.unsqueeze(0)
