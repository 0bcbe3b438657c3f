r"""Residual error: the distribution of an observation around its prediction f.

.. math:: y_{ij} \sim \mathcal N(f_{ij}, \sigma_{ij}^2), \qquad
          \sigma = a, \quad \sigma = b f, \quad \text{or} \quad \sigma^2 = a^2 + b^2 f^2 .

Each function gives a distribution over ``(*, individual, time)``; the program adds
``.mask(observed).to_event(1)``.
"""

import torch
from pyro.distributions import Normal
from torch import Tensor


def additive_error(prediction: Tensor, additive: Tensor) -> Normal:
    r"""Residual error with a constant standard deviation.

    Args:
        prediction: Model prediction f, shape ``(*, individual, time)``, unit of the observations.
        additive: Standard deviation a, broadcastable to ``prediction``, same unit.

    Returns:
        Distribution of the observations, batch shape of ``prediction``.
    """
    return Normal(prediction, additive.expand(prediction.shape))


def proportional_error(prediction: Tensor, proportional: Tensor, floor: float = 1e-6) -> Normal:
    r"""Residual error with a constant coefficient of variation.

    Args:
        prediction: Model prediction f, shape ``(*, individual, time)``, unit of the observations.
        proportional: Coefficient of variation b, broadcastable to ``prediction``, no unit.
        floor: Smallest standard deviation, unit of the observations: a prediction of zero has no
            error else.

    Returns:
        Distribution of the observations, batch shape of ``prediction``.
    """
    return Normal(prediction, (proportional * prediction.abs()).clamp(min=floor))


def combined_error(prediction: Tensor, additive: Tensor, proportional: Tensor) -> Normal:
    r"""Residual error with a constant and a proportional part.

    .. math:: y_{ij} \sim \mathcal{N}(f_{ij},\, a^2 + b^2 f_{ij}^2)

    Args:
        prediction: Model prediction f, shape ``(*, individual, time)``, unit of the observations.
        additive: Standard deviation a, broadcastable to ``prediction``, same unit.
        proportional: Coefficient of variation b, broadcastable to ``prediction``, no unit.

    Returns:
        Distribution of the observations, batch shape of ``prediction``.

    Example:
        >>> law = combined_error(torch.tensor([0.0, 3.0]), torch.tensor(1.0), torch.tensor(0.5))
        >>> law.scale
        tensor([1.0000, 1.8028])

    References:
        Davidian and Giltinan (1995), Nonlinear Models for Repeated Measurement Data.
    """
    return Normal(prediction, torch.hypot(additive, proportional * prediction))
