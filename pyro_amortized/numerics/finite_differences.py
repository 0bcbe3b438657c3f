r"""Gradients and Hessians by central differences."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .weighted_regression import regression

# Effective draws per coefficient, below which the Hessians of an individual are the same for all
# draws.
DRAWS_PER_COEFFICIENT = 2.0
# Mean error of the regression in the second derivatives that differences give as well, above which
# all mixed derivatives are differences. The first coordinates are in posterior standard deviations:
# an error of one is half a unit of the log density at one of them. It was 0.4 for 73 patients with
# seven effects, and 2.5 for cells along a curved ridge, whose information had eigenvalues of the
# wrong sign.
MAX_CURVATURE_ERROR = 1.0


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
    gradient = value.new_zeros(*value.shape, p)
    hessian = value.new_zeros(*value.shape, p, p)
    for a in range(p):
        gradient[..., a] = (ahead[a] - behind[a]) / (2 * steps[a])
        hessian[..., a, a] = (ahead[a] - 2 * value + behind[a]) / steps[a] ** 2
    curved = hessian.diagonal(dim1=-2, dim2=-1) * steps.square()
    _fill_mixed(hessian, pairs, around[2 * p :], value, curved, steps)
    return _where_finite(value.isfinite(), gradient, hessian)


def expansion_of_gradients(
    function: Callable[[Sequence[Tensor]], list[tuple[Tensor, Tensor]]],
    steps: Tensor,
    value: Tensor,
    max_error: float = torch.inf,
) -> tuple[Tensor, Tensor]:
    r"""Gradient and Hessian at zero by central differences of gradients in the first coordinates,
    and of values in the others.

    Args:
        function: Gives values of one shape ``(*)`` and gradients ``(*, d)`` in the first d
            coordinates at some points of shape ``(p,)``.
        steps: Step in each coordinate, shape ``(p,)``.
        value: Values at zero.
        max_error: Largest distance of a gradient from differences of the values, relative to 1 plus
            these. Default: any.

    Returns:
        Shapes ``(*, p)`` and ``(*, p, p)``, zero where the value or a difference is not finite, or
        the gradient is wrong.

    Example:
        >>> gradient, hessian = expansion_of_gradients(
        ...     lambda points: [(x[0] + x[0] * x[1], (1 + x[1]).unsqueeze(0)) for x in points],
        ...     torch.ones(2), torch.zeros(()))
        >>> gradient, hessian
        (tensor([1., 0.]), tensor([[0., 1.],
                [1., 0.]]))
    """
    p, shifts = len(steps), torch.diag(steps)
    (_, center), *around = function([torch.zeros_like(steps), *shifts, *-shifts])
    d = center.shape[-1]
    pairs = [(a, b) for a in range(d, p) for b in range(d, a)]
    corners = [shifts[a] + shifts[b] for a, b in pairs]
    at_corners = [x for x, _ in function([*corners, *(-x for x in corners)])] if pairs else []
    ahead, behind = (torch.stack([x for x, _ in part], -1) for part in (around[:p], around[p:]))
    gradient = (ahead - behind) / (2 * steps)
    wrong = (center - gradient[..., :d]).abs() > max_error * (1 + gradient[..., :d].abs())
    gradient[..., :d] = center
    slopes = torch.stack([x for _, x in around], -1)  # (*, d, 2 p)
    slopes = (slopes[..., :p] - slopes[..., p:]) / (2 * steps)
    curved = ahead - 2 * value.unsqueeze(-1) + behind  # times the squares of the steps
    hessian = value.new_zeros(*value.shape, p, p)
    hessian.diagonal(dim1=-2, dim2=-1).copy_(curved / steps.square())
    hessian[..., :d, :d] = (slopes[..., :d] + slopes[..., :d].transpose(-1, -2)) / 2
    hessian[..., :d, d:] = slopes[..., d:]
    hessian[..., d:, :d] = slopes[..., d:].transpose(-1, -2)
    _fill_mixed(hessian, pairs, at_corners, value, curved, steps)
    return _where_finite(value.isfinite() & ~wrong.any(-1), gradient, hessian)


def regressed_expansion(
    function: Callable[[Sequence[Tensor]], list[Tensor]],
    steps: Tensor,
    value: Tensor,
    draws: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Gradients and Hessians at many draws, most mixed derivatives by regression where it holds.

    The first coordinates are moves of the draws themselves. The mixed derivatives in one of them
    are the slopes of the gradients over the draws: a regression on the draws and their products
    gives them as linear functions of the draw. The number of points is therefore proportional to
    the number of these coordinates, not to its square. Gradients and second derivatives in one
    coordinate are those of every draw; the latter show whether the regression holds, and if not,
    all mixed derivatives are differences.

    Args:
        function: Gives the values at some points of shape ``(p,)``; all values have the shape
            ``(draw, individual)``.
        steps: Step in each coordinate, shape ``(p,)``.
        value: Values at zero.
        draws: The draws in the first coordinates, shape ``(draw, individual, latent)``.
        weights: Normalised weights of the draws, shape ``(draw, individual)``.

    Returns:
        Shapes ``(draw, individual, p)`` and ``(draw, individual, p, p)``, zero where the value or a
        difference is not finite.
    """
    p, d, shifts = len(steps), draws.shape[-1], torch.diag(steps)
    around = function([*shifts, *-shifts])
    ahead, behind = (torch.stack(x, -1) for x in (around[:p], around[p:]))
    gradient = (ahead - behind) / (2 * steps)
    curved = ahead - 2 * value.unsqueeze(-1) + behind  # times the squares of the steps
    finite = gradient.isfinite().all(-1) & curved.isfinite().all(-1) & value.isfinite()
    gradient = gradient.masked_fill(~finite.unsqueeze(-1), 0.0)
    weights = weights.masked_fill(~finite, 0.0)
    weights = weights / weights.sum(0).clamp(min=1e-300)
    slopes = _slopes(draws, gradient, weights)
    holds = _curvature_error(slopes, curved / steps.square(), weights) <= MAX_CURVATURE_ERROR
    pairs = [(a, b) for a in range(d if holds else 0, p) for b in range(d if holds else 0, a)]
    corners = [shifts[a] + shifts[b] for a, b in pairs]
    around = function([*corners, *(-x for x in corners)])
    hessian = slopes.new_zeros(*slopes.shape[:2], p, p)
    hessian[..., :d, :] = slopes
    hessian[..., :d, :d] = (slopes[..., :d] + slopes[..., :d].transpose(-1, -2)) / 2
    hessian[..., d:, :d] = slopes[..., d:].transpose(-1, -2)
    hessian.diagonal(dim1=-2, dim2=-1).copy_(curved / steps.square())
    _fill_mixed(hessian, pairs, around, value, curved, steps)
    return _where_finite(finite, gradient, hessian)


def _fill_mixed(
    hessian: Tensor,
    pairs: list[tuple[int, int]],
    corners: list[Tensor],
    value: Tensor,
    curved: Tensor,
    steps: Tensor,
) -> None:
    """Write the mixed derivatives of pairs of coordinates into a Hessian that is being made.

    Both corners are used, at plus and at minus the two steps: one alone leaves an error of first
    order in the steps. ``curved`` are the second derivatives times the squares of the steps.
    """
    num = len(pairs)
    for (a, b), corner, opposite in zip(pairs, corners[:num], corners[num:], strict=True):
        rest = (corner + opposite) / 2 - value - (curved[..., a] + curved[..., b]) / 2
        hessian[..., a, b] = hessian[..., b, a] = rest / (steps[a] * steps[b])


def _where_finite(usable: Tensor, gradient: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian, zero where one of them is not finite and where they are not usable."""
    finite = usable & gradient.isfinite().all(-1) & hessian.isfinite().flatten(-2).all(-1)
    gradient = gradient.masked_fill(~finite.unsqueeze(-1), 0.0)
    return gradient, hessian.masked_fill(~finite[..., None, None], 0.0)


def _curvature_error(slopes: Tensor, curved: Tensor, weights: Tensor) -> float:
    """Mean error of regressed second derivatives in the first coordinates, beside differences."""
    d = slopes.shape[2]
    regressed = slopes[..., :d].diagonal(dim1=-2, dim2=-1)
    squares = (regressed - curved[..., :d]).square().nan_to_num(0.0, 0.0, 0.0)
    return float((weights.unsqueeze(-1) * squares).sum(0).sqrt().mean())


def _slopes(draws: Tensor, gradient: Tensor, weights: Tensor) -> Tensor:
    """Derivatives of the gradient ``(draw, individual, p)`` in the draws, shape ``(draw,
    individual, latent, p)``: linear in the draw, constant where there are few effective draws.
    """
    d = draws.shape[-1]
    row, column = torch.tril_indices(d, d)
    both = torch.cat([draws, draws[..., row] * draws[..., column]], -1)
    coefficients = regression(both, gradient, weights).nan_to_num(0.0)
    alone = regression(draws, gradient, weights).nan_to_num(0.0)
    few = 1 / weights.square().sum(0) < DRAWS_PER_COEFFICIENT * both.shape[-1]
    linear = torch.where(few[:, None, None], alone, coefficients[:, :d])
    products = coefficients[:, d:].masked_fill(few[:, None, None], 0.0)
    curves = products.new_zeros(len(products), d, d, gradient.shape[-1])
    curves[:, row, column] = products
    curves = curves + curves.transpose(1, 2)
    return linear + torch.einsum("kni,nijp->knjp", draws, curves)
