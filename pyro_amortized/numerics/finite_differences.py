r"""Gradients and Hessians by central differences."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


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
    points = [*shifts, *-shifts, *(shifts[a] + shifts[b] for a, b in pairs)]
    around = function(points)
    ahead, behind, both = around[:p], around[p : 2 * p], around[2 * p :]
    gradient = value.new_zeros(*value.shape, p)
    hessian = value.new_zeros(*value.shape, p, p)
    for a in range(p):
        gradient[..., a] = (ahead[a] - behind[a]) / (2 * steps[a])
        hessian[..., a, a] = (ahead[a] - 2 * value + behind[a]) / steps[a] ** 2
    for (a, b), corner in zip(pairs, both, strict=True):
        curved = (hessian[..., a, a] * steps[a] ** 2 + hessian[..., b, b] * steps[b] ** 2) / 2
        rest = corner - value - gradient[..., a] * steps[a] - gradient[..., b] * steps[b] - curved
        hessian[..., a, b] = hessian[..., b, a] = rest / (steps[a] * steps[b])
    finite = gradient.isfinite().all(-1) & hessian.isfinite().all(-1).all(-1) & value.isfinite()
    gradient[~finite], hessian[~finite] = 0.0, 0.0
    return gradient, hessian
