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

and the standard error of this estimate by half of the sum, as a part of it. The same draws move
the estimates, and with them the place at which the curvature is taken; the slopes of the standard
errors over the estimates, from differences of gradients, add this. Slopes and second derivatives
are those at the estimates. The step to the maximum that the optimiser has left, :math:`C g` with
the gradient g of the objective, is a numerical error that is added to that of the draws.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.laplace import Curvature, difference_steps, laplace_covariance
from ...numerics.maximization import value_and_gradient
from ...sampling.importance_weights import normalized_weights
from ..following.fitted_following import remaining_products
from ..likelihood.exact_likelihood import ExactLikelihood
from ..likelihood.expanded_likelihood import ExpandedLikelihood
from ..likelihood.likelihood_interface import Likelihood, WeightedLikelihood
from .information_check import information_check
from .maximum_search import Ascent, Search


@dataclass(frozen=True)
class ErrorSettings:
    """Constants of the Monte Carlo errors."""

    # Step of first and second differences, in standard errors: second ones lose digits with small
    # steps, and the log weights on draws that follow are nearly of second order.
    step: float = 0.1
    # Values times draws times evaluations above which the change of the standard errors with the
    # estimates is left out: some seconds of gradients. It matters in the third digit of errors.
    max_values: int = 20_000_000


ERRORS = ErrorSettings()


def rough_curvature(search: Search, ascent: Ascent) -> Curvature:
    """The curvature of the likelihood of a round where it ended, good enough for a number of draws:
    it may contain the error of the regression that gives mixed derivatives, which takes as long to
    remove as the round.
    """
    objective = search.objective(ascent.likelihood)
    place = (ascent.optimum.vector, search.scale, ~ascent.held)
    check = information_check(search.objective, ascent.likelihood, *place, exact_mixed=False)
    steps = difference_steps(ascent.likelihood.following.scores, search.scale)
    return laplace_covariance(objective, *place, steps, check)


def draws_needed(ascent: Ascent, curvature: Curvature, targets: Tensor) -> int:
    r"""Draws per individual with which the Monte Carlo errors of the estimates are small.

    Args:
        ascent: A round that ended near the maximum.
        curvature: That of its likelihood there.
        targets: The largest errors, in standard errors, shape ``(population,)``.

    Returns:
        The number; 0 where the standard errors are not known.
    """
    errors = _errors_of_following(ascent.likelihood, curvature.covariance)
    relative = errors / curvature.covariance.diagonal().sqrt() / targets
    excess = float(relative.nan_to_num(0.0).max())
    return round(ascent.likelihood.individuals.num_draws * excess**2)


_OnDraws = ExactLikelihood | ExpandedLikelihood


class EstimateErrors(NamedTuple):
    """Errors of the estimates, unconstrained, and of the standard errors, as parts of these, shape
    ``(population,)`` each; NaN where the covariance is, and where they are not known.
    """

    of_estimates: Tensor
    of_standard_errors: Tensor


def estimate_errors(
    search: Search,
    likelihood: Likelihood,
    vector: Tensor,
    covariance: Tensor,
    by_scores: bool = False,
) -> EstimateErrors:
    r"""Monte Carlo and numerical standard errors of the estimates and of their standard errors.

    Args:
        search: The search.
        likelihood: The likelihood that was maximised, or one on other draws from the same mixtures,
            whose curvature gave the covariance.
        vector: The estimates, unconstrained, shape ``(population,)``.
        covariance: Their covariance, shape ``(population, population)``; NaN where it is unknown.
        by_scores: Whether it is that of the scores, because the curvature on the draws is wrong.

    Returns:
        The errors. Those of the standard errors are not known for the likelihood of a large cohort,
        whose draws were not kept, and where they are not those of the curvature.
    """
    known, sd, directions = _known_directions(covariance)
    unknown = torch.full((len(vector),), torch.nan, dtype=torch.float64)
    if by_scores or not len(known) or not isinstance(likelihood, _OnDraws):
        followed = bool(likelihood.following.score_covariance.isfinite().all())
        errors = _errors_of_following(likelihood, covariance) if followed else unknown
        return EstimateErrors(errors, unknown)
    slopes, curved = _influences(likelihood, vector, directions)
    step, slopes_of_errors = _of_the_maximum(search, likelihood, vector, covariance)
    # The same draws move the estimate, and with it the place at which the curvature is taken.
    changes = curved / 2 + torch.einsum("kna,ja->knj", slopes, slopes_of_errors)
    products = remaining_products(likelihood.individuals, torch.cat([slopes, changes], -1))
    variances = products.diagonal()
    numerical = torch.cat([step, slopes_of_errors @ step]).square()
    errors = (variances + numerical).sqrt().split(len(known))
    of_estimates, of_errors = unknown.clone(), unknown.clone()
    of_estimates[known], of_errors[known] = errors[0] * sd, errors[1]
    return EstimateErrors(of_estimates, of_errors)


def _known_directions(covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The parameters with a standard error, these, and the directions in which the estimates move
    by one of them, shape ``(known, population)``.
    """
    standard_errors = covariance.diagonal().sqrt()
    known = (standard_errors > 0).nonzero()[:, 0]
    sd = standard_errors[known]
    return known, sd, covariance[known].nan_to_num(0.0) / sd.unsqueeze(1)


def _influences(
    likelihood: WeightedLikelihood, vector: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """What every draw adds to the slopes of the log likelihood along directions of one standard
    error, and to its second derivatives, shape ``(draw, individual, direction)`` each.
    """
    structure, step = likelihood.individuals.structure, ERRORS.step
    slopes_of, curved_of = [], []
    with torch.no_grad():
        center = likelihood.log_weights(structure.constrain_population(vector))
        weights = normalized_weights(center)
        for direction in directions:
            ahead, behind = (
                likelihood.log_weights(structure.constrain_population(vector + shift))
                for shift in (step * direction, -step * direction)
            )
            slopes = torch.where(weights > 0, (ahead - behind) / (2 * step), 0.0)
            curved = torch.where(weights > 0, (ahead - 2 * center + behind) / step**2, 0.0)
            curved, mean = curved + slopes.square(), (weights * slopes).sum(0)
            influence = curved - (weights * curved).sum(0) - 2 * mean * (slopes - mean)
            slopes_of.append(weights * (slopes - mean))
            curved_of.append(weights * influence)
    return torch.stack(slopes_of, -1), torch.stack(curved_of, -1)


def _of_the_maximum(
    search: Search, likelihood: WeightedLikelihood, vector: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """The step from the estimates to the maximum that the optimiser has left, in standard errors,
    shape ``(direction,)``, and the slopes of the logarithms of the standard errors over the
    estimates, per standard error, shape ``(direction, direction)``; zero where they are expensive.
    """
    known, sd, directions = _known_directions(covariance)
    objective = search.objective(likelihood)
    gradient = value_and_gradient(objective, vector)[1].nan_to_num(0.0, 0.0, 0.0)
    step, slopes = directions @ gradient, []
    drawn = likelihood.individuals
    is_large = 2 * len(sd) * drawn.num_draws * drawn.cohort.num_values > ERRORS.max_values
    if is_large or search.structure.estimator == "likelihood-free":
        return step, torch.zeros(len(step), len(step), dtype=step.dtype)
    for direction in directions:
        ahead, behind = (
            value_and_gradient(objective, vector + shift)[1]
            for shift in (ERRORS.step * direction, -ERRORS.step * direction)
        )
        third = (ahead - 2 * gradient + behind) / ERRORS.step**2
        slopes.append(third.nan_to_num(0.0, 0.0, 0.0)[known] * sd / 2)
    return step, torch.stack(slopes)


def _errors_of_following(likelihood: Likelihood, covariance: Tensor) -> Tensor:
    """The errors by the slopes at the population of the draws; NaN where they are not known."""
    known = covariance.nan_to_num(0.0)
    variances = (known @ likelihood.following.score_covariance @ known).diagonal()
    return variances.sqrt().masked_fill(covariance.diagonal().isnan(), torch.nan)
