r"""Monte Carlo errors of the estimates of a fit.

The estimates maximise a likelihood that is a mean over draws. With the gradients
:math:`s_{ik}` of the log weights, their means :math:`\bar s_i` over the weighted draws, and the
covariance C of the estimates, other draws would move the estimates by

.. math:: C \sum_i \sum_k w_{ik} (s_{ik} - \bar s_i) .

Its covariance is that of a sum of independent terms (the delta method). Where the draws follow the
population, the gradients contain their moves, which removes most of the variance; what control
variates remove of the rest is taken off too. In the same way, with second derivatives
:math:`h_{ik}` of the log weights in the direction :math:`d_j` of one standard error of an estimate,
other draws would change the curvature of the log likelihood of an individual by

.. math:: \sum_k w_{ik} \big(h_{ik} + s_{ik}^2 - A_i - 2 \bar s_i (s_{ik} - \bar s_i)\big), \qquad
          A_i = \sum_k w_{ik} (h_{ik} + s_{ik}^2) ,

and the standard error of this estimate by half of the sum, as a part of it. The slopes are those at
the population of the draws, which the moves of the draws are computed from.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..model import ModelStructure
from ..numerics.laplace import laplace_covariance
from ..sampling.importance_weights import normalized_weights
from .exact_likelihood import ExactLikelihood
from .expanded_likelihood import ExpandedLikelihood
from .fitted_following import remaining_products
from .likelihood_interface import Likelihood, WeightedLikelihood
from .maximum_search import Ascent, Search


@dataclass(frozen=True)
class ErrorSettings:
    """Constants of the Monte Carlo errors."""

    # Step of the differences, in standard errors, where the draws do not follow: the log weights
    # are expanded to second order, for which central differences are exact but for the density of
    # the population.
    step: float = 0.02
    # The same for second differences, which lose digits with small steps.
    curvature_step: float = 0.1


ERRORS = ErrorSettings()


def draws_needed(search: Search, ascent: Ascent, target: float) -> int:
    r"""Draws per individual with which the Monte Carlo errors of the estimates are small.

    Args:
        search: The search.
        ascent: A round that ended near the maximum.
        target: The largest error, in standard errors.

    Returns:
        The number; 0 where the standard errors are not known.
    """
    vector, likelihood = ascent.optimum.vector, ascent.likelihood
    objective = search.objective(likelihood)
    covariance = laplace_covariance(objective, vector, search.scale, ~ascent.held).covariance
    errors = _errors_of_following(likelihood, covariance)
    relative = float((errors / covariance.diagonal().sqrt()).nan_to_num(0.0).max())
    return round(likelihood.individuals.num_draws * (relative / target) ** 2)


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
    if bool(likelihood.following.score_covariance.isfinite().all()):
        return _errors_of_following(likelihood, covariance)
    likelihood = cast(WeightedLikelihood, likelihood)
    standard_errors = covariance.diagonal().sqrt()
    errors = torch.full_like(standard_errors, torch.nan)
    known = (standard_errors > 0).nonzero()[:, 0]
    directions = covariance[known].nan_to_num(0.0) / standard_errors[known].unsqueeze(1)
    if not len(known):
        return errors
    with torch.no_grad():
        weights = normalized_weights(likelihood.log_weights(structure.constrain_population(vector)))
        spreads = []
        for direction in directions:
            ahead, behind = (
                likelihood.log_weights(structure.constrain_population(vector + shift))
                for shift in (ERRORS.step * direction, -ERRORS.step * direction)
            )
            slopes = (ahead - behind) / (2 * ERRORS.step)
            slopes = torch.where(weights > 0, slopes, 0.0)
            spreads.append(weights * (slopes - (weights * slopes).sum(0)))
        products = remaining_products(likelihood.individuals, torch.stack(spreads, -1))
    errors[known] = products.diagonal().sqrt() * standard_errors[known]
    return errors


def standard_error_errors(likelihood: Likelihood, vector: Tensor, covariance: Tensor) -> Tensor:
    r"""Monte Carlo standard error of every standard error, as a part of it.

    Args:
        likelihood: The likelihood whose curvature gave the covariance.
        vector: The estimates, unconstrained, shape ``(population,)``.
        covariance: Their covariance, shape ``(population, population)``; NaN where it is unknown.

    Returns:
        Shape ``(population,)``; NaN where the covariance is, and for the likelihood of a large
        cohort, whose draws were not kept.
    """
    standard_errors = covariance.diagonal().sqrt()
    errors = torch.full_like(standard_errors, torch.nan)
    if not isinstance(likelihood, ExactLikelihood | ExpandedLikelihood):
        return errors
    known = (standard_errors > 0).nonzero()[:, 0]
    if not len(known):
        return errors
    directions = covariance[known].nan_to_num(0.0) / standard_errors[known].unsqueeze(1)
    errors[known] = curvature_errors(likelihood, vector, directions) / 2
    return errors


def curvature_errors(
    likelihood: ExactLikelihood | ExpandedLikelihood, vector: Tensor, directions: Tensor
) -> Tensor:
    r"""Monte Carlo standard error of the second derivative of the log likelihood.

    Args:
        likelihood: The likelihood on draws that were made at the population or near it.
        vector: The population, unconstrained, shape ``(population,)``.
        directions: Directions of about one standard error, shape ``(direction, population)``.

    Returns:
        In every direction, shape ``(direction,)``.
    """
    structure, step = likelihood.individuals.structure, ERRORS.curvature_step
    with torch.no_grad():
        center = likelihood.log_weights(structure.constrain_population(vector))
        weights, spreads = normalized_weights(center), []
        for direction in directions:
            ahead, behind = (
                likelihood.log_weights(structure.constrain_population(vector + shift))
                for shift in (step * direction, -step * direction)
            )
            slopes = torch.where(weights > 0, (ahead - behind) / (2 * step), 0.0)
            curved = torch.where(weights > 0, (ahead - 2 * center + behind) / step**2, 0.0)
            curved, mean = curved + slopes.square(), (weights * slopes).sum(0)
            influence = curved - (weights * curved).sum(0) - 2 * mean * (slopes - mean)
            spreads.append(weights * influence)
        products = remaining_products(likelihood.individuals, torch.stack(spreads, -1))
    return products.diagonal().sqrt()


def _errors_of_following(likelihood: Likelihood, covariance: Tensor) -> Tensor:
    """The errors by the slopes at the population of the draws; NaN where they are not known."""
    known = covariance.nan_to_num(0.0)
    variances = (known @ likelihood.following.score_covariance @ known).diagonal()
    return variances.sqrt().masked_fill(covariance.diagonal().isnan(), torch.nan)
