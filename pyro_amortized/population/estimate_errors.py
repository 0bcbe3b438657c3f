r"""Monte Carlo errors of the estimates of a fit.

The estimates maximise a likelihood that is a mean over draws. With the gradients
:math:`s_{ik}` of the log weights, their means :math:`\bar s_i` over the weighted draws, and the
covariance C of the estimates, other draws would move the estimates by

.. math:: C \sum_i \sum_k w_{ik} (s_{ik} - \bar s_i) .

Its covariance is that of a sum of independent terms (the delta method). Where the draws follow the
population, the gradients contain their moves, which removes most of the variance.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import ModelStructure
from ..sampling.importance_weights import normalized_weights
from .likelihood_interface import Likelihood


@dataclass(frozen=True)
class ErrorSettings:
    """Constants of the Monte Carlo errors."""

    # Step of the differences, in standard errors: the log weights are expanded to second order,
    # for which central differences are exact but for the density of the population.
    step: float = 0.02


ERRORS = ErrorSettings()


def monte_carlo_errors(
    likelihood: Likelihood, structure: ModelStructure, vector: Tensor, covariance: Tensor
) -> Tensor:
    r"""Monte Carlo standard error of every estimate.

    Args:
        likelihood: The likelihood that was maximised, or one on other draws from the same mixtures.
        structure: The structure of the model.
        vector: The estimates, unconstrained, shape ``(population,)``.
        covariance: Their covariance, shape ``(population, population)``; NaN where it is unknown.

    Returns:
        In unconstrained coordinates, shape ``(population,)``; NaN where the covariance is.
    """
    standard_errors = covariance.diagonal().sqrt()
    errors = torch.full_like(standard_errors, torch.nan)
    with torch.no_grad():
        weights = normalized_weights(likelihood.log_weights(structure.constrain_population(vector)))
        for j in (standard_errors > 0).nonzero()[:, 0].tolist():
            direction = covariance[j].nan_to_num(0.0) / standard_errors[j]
            ahead, behind = (
                likelihood.log_weights(structure.constrain_population(vector + shift))
                for shift in (ERRORS.step * direction, -ERRORS.step * direction)
            )
            slopes = (ahead - behind) / (2 * ERRORS.step)
            slopes = torch.where(weights > 0, slopes, 0.0)
            spread = weights * (slopes - (weights * slopes).sum(0))
            errors[j] = spread.pow(2).sum().sqrt() * standard_errors[j]
    return errors
