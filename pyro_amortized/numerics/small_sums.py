r"""Sums and quadratic forms over a last dimension of few entries.

Draws of individuals have shape ``(draw, individual, parameter)`` with a few parameters. A sum over
so short a dimension takes ten times as long as a product with a vector of ones; the gradient of a
product of many small matrices, twice as long as the product.
"""

from typing import Any

import torch
from torch import Tensor


def sum_last(x: Tensor) -> Tensor:
    """Sum over the last dimension, of few entries.

    Example:
        >>> sum_last(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([3., 7.])
    """
    return x.squeeze(-1) if x.shape[-1] == 1 else x @ x.new_ones(x.shape[-1])


def quadratic_form(gradient: Tensor, hessian: Tensor, x: Tensor) -> Tensor:
    r"""The polynomial :math:`g^\top x + \tfrac12 x^\top H x`, differentiable in x alone.

    Args:
        gradient: g, shape ``(*, coordinate)``.
        hessian: H, symmetric, shape ``(*, coordinate, coordinate)``.
        x: Shape ``(*, coordinate)``.

    Returns:
        Shape ``(*)``.

    Example:
        >>> x = torch.tensor([2.0], requires_grad=True)
        >>> value = quadratic_form(torch.tensor([1.0]), torch.tensor([[3.0]]), x)
        >>> value.detach(), torch.autograd.grad(value, x)[0]
        (tensor(8.), tensor([7.]))
    """
    if not torch.is_grad_enabled():  # ``torch.vmap`` runs no function with a gradient of its own
        curved = (hessian @ x.unsqueeze(-1)).squeeze(-1)
        return sum_last((gradient + 0.5 * curved) * x)
    result: Tensor = _QuadraticForm.apply(gradient, hessian, x)  # type: ignore[no-untyped-call]
    return result


class _QuadraticForm(torch.autograd.Function):
    """The product with the Hessian gives the value and the slope."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, hessian: Tensor, x: Tensor) -> Tensor:
        curved = (hessian @ x.unsqueeze(-1)).squeeze(-1)
        ctx.save_for_backward(gradient, hessian, x, gradient + curved)
        return sum_last((gradient + 0.5 * curved) * x)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, None, Tensor]:
        gradient, hessian, x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # the slope as a function of x, for second derivatives
            slope = gradient + (hessian @ x.unsqueeze(-1)).squeeze(-1)
        return None, None, grad_output.unsqueeze(-1) * slope
