r"""The maximum of a smooth function of a vector, and its observed information.

The gradient is exact (autograd). The information matrix is the central difference of gradients,

.. math:: I_{ab} = -\frac{g_a(x + h e_b) - g_a(x - h e_b)}{2h},

so it needs no second derivative of an ODE solver. Under common random numbers the differences add
no Monte Carlo error of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MaximizationSettings:
    r"""Thresholds of the optimizer.

    Args:
        tolerance: The optimizer stops when no slope is larger, in log likelihood per unit of
            ``scale``: far below the Monte Carlo error of any log likelihood of the library.
        accepted_gradient: BFGS reports a loss of precision when the gradient is as small as
            rounding errors allow. With slopes below this bound it has converged nevertheless.
        not_finite: Value of the negative objective where the objective is not finite.
        counted_gain: Gain from which an iteration that gains little in comparison may be the last
            one: a smaller gain says nothing of the distance from the maximum.
        difference: Step of the differences that give the observed information.
    """

    tolerance: float = 1e-4
    accepted_gradient: float = 1e-2
    not_finite: float = 1e15
    counted_gain: float = 1.0
    difference: float = 1e-3


DEFAULTS = MaximizationSettings()


class Optimum(NamedTuple):
    """The maximum of a function: the vector, the value, whether the optimizer converged, and its
    message.
    """

    vector: Tensor
    value: float
    converged: bool
    message: str


def maximize(
    objective: Objective,
    start: Tensor,
    *,
    scale: Tensor | None = None,
    max_iterations: int = 200,
    tolerance: float = DEFAULTS.tolerance,
    min_share: float = 0.0,
) -> Optimum:
    r"""Maximise by BFGS with exact gradients.

    Args:
        objective: Differentiable function of a vector; a value that is not finite counts as a very
            small one.
        start: First vector, shape ``(parameter,)``.
        scale: Size of a large step in each parameter, shape ``(parameter,)``, or a matrix whose
            columns are large steps, shape ``(parameter, step)``. The optimizer works in
            multiples of it, and moves in no other direction; few iterations are needed where the
            matrix times its transpose is about the inverse of the curvature. Default: 1.
        max_iterations: Largest number of iterations.
        tolerance: Largest slope at the maximum, in units of the objective per unit of ``scale``.
        min_share: The optimizer also stops after an iteration that gains less than this part of
            the gain of all iterations, for a maximum that need not be exact.

    Returns:
        The best point that was evaluated.

    Example:
        >>> best = maximize(lambda x: -((x - 2.0) ** 2).sum(), torch.zeros(2))
        >>> best.vector.round(decimals=4), best.converged
        (tensor([2., 2.], dtype=torch.float64), True)
    """
    origin = start.detach().double()
    unit = torch.eye(len(origin)).double() if scale is None else scale.double()
    unit = unit.diag() if unit.ndim == 1 else unit
    best_value, best_x = -np.inf, np.zeros(unit.shape[1])
    values: list[float] = []  # at the start, and after every iteration

    def negative(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best_value, best_x
        value, gradient = value_and_gradient(objective, origin + unit @ torch.as_tensor(x))
        if not (np.isfinite(value) and bool(gradient.isfinite().all())):
            value, gradient = -DEFAULTS.not_finite, torch.zeros_like(gradient)
        if value > best_value:
            best_value, best_x = value, x.copy()
        if not values:
            values.append(value)
        return -value, -(gradient @ unit).numpy()

    def after_iteration(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        values.append(-float(intermediate_result.fun))
        if _gains_little(values, min_share):
            raise StopIteration

    options: dict[str, Any] = {"maxiter": max_iterations, "gtol": tolerance}
    with np.errstate(over="ignore", invalid="ignore"):  # of the curvature in flat directions
        result = scipy.optimize.minimize(
            negative, best_x, jac=True, method="BFGS", options=options, callback=after_iteration
        )
    largest_slope = float(np.abs(result.jac).max(initial=0.0))
    converged = bool(result.success) or largest_slope < max(tolerance, DEFAULTS.accepted_gradient)
    vector = origin + unit @ torch.as_tensor(best_x)
    return Optimum(vector, float(best_value), converged, str(result.message))


def _gains_little(values: list[float], min_share: float) -> bool:
    """Whether the last iteration has gained less than a part of the gain of all; one alone does
    not count.
    """
    gain = values[-1] - values[0]
    is_little = values[-1] - values[-2] < min_share * gain
    return len(values) > 2 and gain > DEFAULTS.counted_gain and is_little


def value_and_gradient(objective: Objective, vector: Tensor) -> tuple[float, Tensor]:
    """Value and gradient of a function of a vector, in float64."""
    x = vector.detach().double().clone().requires_grad_()
    value = objective(x)
    if not value.requires_grad:
        return float(value.detach()), torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(value, x)
    return float(value.detach()), gradient


def observed_information(
    objective: Objective, vector: Tensor, step: Tensor | float = DEFAULTS.difference
) -> Tensor:
    """Negative Hessian of a function at a point, symmetric, shape ``(parameter, parameter)``.

    Args:
        objective: Differentiable function of a vector.
        vector: The point.
        step: Step of the differences, one number or one per parameter.
    """
    steps = torch.as_tensor(step, dtype=torch.float64).expand(len(vector))
    columns = []
    for shift, size in zip(torch.diag(steps), steps, strict=True):
        ahead = value_and_gradient(objective, vector + shift)[1]
        behind = value_and_gradient(objective, vector - shift)[1]
        columns.append((behind - ahead) / (2 * size))
    information = torch.stack(columns, 1)
    return (information + information.T) / 2
