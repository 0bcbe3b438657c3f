r"""Maximise a smooth function of a vector; its observed information. Plain numbers: no model, no
data.

The gradient is exact (autograd); the information matrix is the central difference of gradients,

.. math:: I_{ab} = -\frac{g_a(x + h e_b) - g_a(x - h e_b)}{2h},

so that it needs no second derivative of an ODE solver, and under common random numbers it has no
noise of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]


class Optimum(NamedTuple):
    """Where a function is largest: the vector, the value, whether the optimiser converged, what it
    said, and the inverse curvature that it found, in units of the scale.
    """

    vector: Tensor
    value: float
    converged: bool
    message: str
    curvature: Tensor


def maximize(
    objective: Objective,
    start: Tensor,
    *,
    scale: Tensor | None = None,
    max_iterations: int = 200,
    curvature: Tensor | None = None,
) -> Optimum:
    r"""Maximise by BFGS with exact gradients.

    Args:
        objective: Differentiable function of a vector; a value that is not finite counts as very
            small.
        start: Where to begin, shape ``(parameter,)``.
        scale: Size of a large step in each parameter, shape ``(parameter,)``; the optimiser moves
            multiples of it. Default: 1.
        max_iterations: Limit on the iterations.
        curvature: Of an optimum of a similar function, to begin with; shape ``(parameter,
            parameter)``.

    Returns:
        The best point seen.

    Example:
        >>> best = maximize(lambda x: -((x - 2.0) ** 2).sum(), torch.zeros(2))
        >>> best.vector.round(decimals=4), best.converged
        (tensor([2., 2.], dtype=torch.float64), True)
    """
    origin = start.detach().double()
    unit = torch.ones_like(origin) if scale is None else scale.double()
    best_value, best_x = -np.inf, np.zeros(len(origin))

    def negative(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best_value, best_x
        value, gradient = value_and_gradient(objective, origin + unit * torch.as_tensor(x))
        if not (np.isfinite(value) and bool(gradient.isfinite().all())):
            return 1e15, np.zeros_like(x)
        if value > best_value:
            best_value, best_x = value, x.copy()
        return -value, -(gradient * unit).numpy()

    options: dict[str, Any] = {"maxiter": max_iterations, "gtol": 1e-4}
    if curvature is not None and int(torch.linalg.cholesky_ex(curvature).info) == 0:
        options["hess_inv0"] = curvature.numpy()
    result = scipy.optimize.minimize(negative, best_x, jac=True, method="BFGS", options=options)
    # BFGS reports a loss of precision where the gradient is as small as rounding allows.
    converged = bool(result.success) or bool(np.abs(result.jac).max(initial=0.0) < 1e-2)
    vector = origin + unit * torch.as_tensor(best_x)
    inverse = torch.as_tensor(result.hess_inv).reshape(len(origin), len(origin))
    found = (inverse + inverse.T) / 2
    return Optimum(vector, float(best_value), converged, str(result.message), found)


def value_and_gradient(objective: Objective, vector: Tensor) -> tuple[float, Tensor]:
    """Value and gradient of a function of a vector, in float64."""
    x = vector.detach().double().clone().requires_grad_()
    value = objective(x)
    if not value.requires_grad:
        return float(value.detach()), torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(value, x)
    return float(value.detach()), gradient


def observed_information(
    objective: Objective, vector: Tensor, step: Tensor | float = 1e-3
) -> Tensor:
    """Negative Hessian of a function at a point, symmetric, shape ``(parameter, parameter)``.

    Args:
        objective: Differentiable function of a vector.
        vector: The point.
        step: Step of the differences, one for all or one per parameter.
    """
    steps = torch.as_tensor(step, dtype=torch.float64).expand(len(vector))
    columns = []
    for shift, size in zip(torch.diag(steps), steps, strict=True):
        ahead = value_and_gradient(objective, vector + shift)[1]
        behind = value_and_gradient(objective, vector - shift)[1]
        columns.append((behind - ahead) / (2 * size))
    information = torch.stack(columns, 1)
    return (information + information.T) / 2
