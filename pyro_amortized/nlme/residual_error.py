r"""Residual error: the distribution of an observation around its prediction f.

.. math:: y_{ij} \sim \mathcal N(f_{ij}, \sigma_{ij}^2), \qquad
          \sigma = a, \quad \sigma = b f, \quad \sigma = a + b f \text{ (combined 1)} \quad
          \text{or} \quad \sigma^2 = a^2 + b^2 f^2 \text{ (combined 2)} .

Each function takes predictions and returns a distribution over ``(*, individual, time)``; the model
adds ``.mask(observed).to_event(1)``. Parameters broadcast to the prediction: write
``sigma[..., None]`` if every individual or draw has its own. For counts and binary or ordered
outcomes use Pyro's distributions ``Poisson``, ``NegativeBinomial``, ``Bernoulli`` and
``OrderedLogistic``.
"""

from dataclasses import dataclass

import torch
from pyro.distributions import LogNormal, Normal, StudentT
from torch import Tensor

from ..errors import ModelError


@dataclass(frozen=True)
class ResidualErrorSettings:
    r"""Default of the residual error models.

    Args:
        floor: Smallest standard deviation or median, in the unit of the observations: far below
            what an assay resolves in usual units.
    """

    floor: float = 1e-6


DEFAULTS = ResidualErrorSettings()


def additive_error(prediction: Tensor, additive: Tensor) -> Normal:
    r"""Residual error with a constant standard deviation.

    Args:
        prediction: Model prediction f, shape ``(*, individual, time)``, unit of the observations.
        additive: Standard deviation a, broadcastable to ``prediction``, same unit.

    Returns:
        Distribution of the observations, batch shape of ``prediction``.
    """
    return Normal(prediction, additive.expand(prediction.shape))


def proportional_error(
    prediction: Tensor, proportional: Tensor, floor: float = DEFAULTS.floor
) -> Normal:
    r"""Residual error with a constant coefficient of variation.

    Args:
        prediction: Model prediction f, shape ``(*, individual, time)``, unit of the observations.
        proportional: Coefficient of variation b, broadcastable to ``prediction``, no unit.
        floor: Smallest standard deviation, unit of the observations. Without it a prediction of 0
            would have the standard deviation 0, which is no density.

    Returns:
        Distribution of the observations, batch shape of ``prediction``.
    """
    return Normal(prediction, (proportional * prediction.abs()).clamp(min=floor))


def combined_error(
    prediction: Tensor, additive: Tensor, proportional: Tensor, kind: int = 2
) -> Normal:
    r"""Residual error with a constant and a proportional part.

    Args:
        prediction: Model prediction f, shape ``(*, individual, time)``, unit of the observations.
        additive: Standard deviation a, broadcastable to ``prediction``, same unit.
        proportional: Coefficient of variation b, broadcastable to ``prediction``, no unit.
        kind: 2: variances add, :math:`\sigma^2 = a^2 + b^2 f^2` (NONMEM's usual form, Monolix'
            "combined2"). 1: standard deviations add, :math:`\sigma = a + b |f|` ("combined1").

    Returns:
        Distribution of the observations, batch shape of ``prediction``.

    Raises:
        ModelError: ``kind`` is neither 1 nor 2.

    Example:
        >>> f, a, b = torch.tensor([0.0, 3.0]), torch.tensor(1.0), torch.tensor(0.5)
        >>> combined_error(f, a, b).scale
        tensor([1.0000, 1.8028])

    References:
        Davidian and Giltinan (1995), Nonlinear Models for Repeated Measurement Data; Proost (2017),
        Combined proportional and additive residual error models in population pharmacokinetic
        modelling.
    """
    if kind not in (1, 2):
        raise ModelError(f"kind={kind!r}.", "1 or 2.", "correct `kind`.")
    scaled = proportional * prediction.abs()
    return Normal(prediction, torch.hypot(additive, scaled) if kind == 2 else additive + scaled)


def lognormal_error(prediction: Tensor, scale: Tensor, floor: float = DEFAULTS.floor) -> LogNormal:
    r"""Log-normal residual error: :math:`\log y \sim \mathcal N(\log f, s^2)`.

    Args:
        prediction: Model prediction f, the median, shape ``(*, individual, time)``, unit of the
            observations; positive.
        scale: Standard deviation s of the logarithm, broadcastable to ``prediction``, no unit.
        floor: Smallest prediction that is used, unit of the observations; its logarithm is finite.

    Returns:
        Distribution of the observations, batch shape of ``prediction``.
    """
    return LogNormal(prediction.clamp(min=floor).log(), scale.expand(prediction.shape))


def student_error(prediction: Tensor, scale: Tensor, degrees: Tensor | float) -> StudentT:
    r"""Student-t residual error, for data with outliers.

    Args:
        prediction: Model prediction f, shape ``(*, individual, time)``, unit of the observations.
        scale: Scale of the t distribution, broadcastable to ``prediction``, same unit; for
            instance ``combined_error(...).scale``. The standard deviation is the scale times
            sqrt(degrees / (degrees - 2)).
        degrees: Degrees of freedom, broadcastable to ``prediction``.

    Returns:
        Distribution of the observations, batch shape of ``prediction``.
    """
    freedom = torch.as_tensor(degrees, dtype=prediction.dtype, device=prediction.device)
    return StudentT(freedom.expand(prediction.shape), prediction, scale.expand(prediction.shape))
