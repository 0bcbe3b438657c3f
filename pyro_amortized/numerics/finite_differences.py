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
