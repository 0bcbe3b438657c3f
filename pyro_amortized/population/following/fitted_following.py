r"""How the draws of every individual follow the population, fitted to them.

The regression of :mod:`pyro_amortized.population.following.following_draws` needs the derivatives
of the density in every individual parameter, at every draw.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.cholesky import positive_deviations
from ...sampling.control_variates import remaining_terms
from ...sampling.importance_weights import effective_sample_size, normalized_weights
from ...sampling.individuals import IndividualPosteriors
from .draw_moves import fitted_moves, num_products
from .fixed_draws import without_negligible
from .following_draws import FOLLOWING, Following, axes_of, reach_of
from .observation_differences import ObservationDifferences, slopes_at
from .score_bias import information_bias, scores_of


class Followed(NamedTuple):
    r"""How draws follow the population, and what shows it.

    Args:
        following: Their moves.
        differences: Observations about the draws that they come from, or None.
    """

    following: Following
    differences: ObservationDifferences | None


def follow(individuals: IndividualPosteriors, scale: Tensor) -> Following:
    """How weighted draws move with the population. ``scale`` is the size of a large step in each
    unconstrained population parameter, shape ``(population,)``.
    """
    return followed(individuals, scale).following


def followed(
    individuals: IndividualPosteriors,
    scale: Tensor,
    most: int | None = None,
    by_torch: bool = True,
) -> Followed:
    r"""How weighted draws move with the population, and what shows it.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
        most: Number of draws of each individual that the regression uses. Default: as many as it
            needs.
        by_torch: Whether automatic differentiation may give the gradients; differences are used
            again by an expansion.

    Returns:
        The regression of the slopes. Draws of an individual whose slopes are not finite stay, and
        all draws of a likelihood-free estimate: the log density of the splines that the guide has
        learned has kinks in the individual parameters, so that moved draws would have no curvature.
        Draws of an individual with few effective draws are stretched in each parameter separately,
        or not at all.
    """
    structure = individuals.structure
    center = structure.unconstrain_population(individuals.population).detach()
    weighted = _weighted_draws(individuals, most)
    weights, offset = weighted.weights, weighted.offset
    covariance = torch.einsum("kn,kni,knj->nij", weights, offset, offset)
    spread = positive_deviations(covariance)
    (num, d), p, zero = spread.shape, len(center), spread.new_zeros
    flows = bool(structure.coordinates(structure.shared).all())
    nothing = (zero(num, d, p), zero(num, d, d, p))
    unknown = torch.full((p, p), torch.nan).double()
    axes = axes_of(covariance)
    nowhere = (weighted.mean, spread, axes, spread)
    stay = Following(center, *nothing, *nowhere, zero(num, p), zero(num, p), unknown, flows)
    if structure.estimator == "likelihood-free":
        return Followed(stay, None)
    steps = (FOLLOWING.relative_step * scale, FOLLOWING.individual_step * axes)
    scores, gradients, differences = slopes_at(individuals, weighted.draws, *steps, by_torch)
    parts = (offset, gradients, -scores, weights, effective_sample_size(weighted.log_weights))
    directions, rates, *regressed = fitted_moves(covariance, *parts)
    slopes = _moved_slopes(scores, gradients, (directions, rates), offset)
    slopes = slopes.masked_fill((weights == 0).unsqueeze(-1), 0.0).nan_to_num(0.0, 0.0, 0.0)
    means = torch.einsum("kn,knp->np", weights, slopes)
    spreads = weights.unsqueeze(-1) * (slopes - means)
    regressors, changes = (x.transpose(0, 1).nan_to_num(0.0, 0.0, 0.0) for x in regressed)
    terms = torch.cat([spreads, weights.unsqueeze(-1) * regressors], -1)
    remaining = remaining_of(individuals, terms)
    errors = len(weights) / individuals.num_draws * _products(remaining[..., :p])
    reach = reach_of(spread, directions, ~structure.coordinates(structure.shared) * scale)
    moving = replace(stay, directions=directions, rates=rates, reach=reach)
    left = (remaining[..., p:] * changes).sum(-1)
    scores, bias = scores_of(individuals, slopes, weights, left)
    following = replace(moving, scores=scores, bias=bias, score_covariance=errors)
    excess = information_bias(individuals, slopes, weights, left)
    return Followed(replace(following, information_bias=excess), differences)


def _moved_slopes(
    scores: Tensor, gradients: Tensor, moves: tuple[Tensor, Tensor], offset: Tensor
) -> Tensor:
    """Slopes of the log weights of draws that move, shape ``(draw, individual, population)``. They
    have the same mean as the scores, and less Monte Carlo error.
    """
    directions, rates = moves
    slopes = scores + torch.einsum("kni,nip->knp", gradients, directions)
    slopes = slopes + torch.einsum("kni,nijp,knj->knp", gradients, rates, offset)
    return slopes + rates.diagonal(dim1=1, dim2=2).sum(-1)


def remaining_products(individuals: IndividualPosteriors, spreads: Tensor) -> Tensor:
    r"""Covariance of the Monte Carlo errors of sums over the draws of all individuals.

    Args:
        individuals: The draws.
        spreads: Terms of the sums at the first of the draws: their weight times the distance of a
            value from its weighted mean, shape ``(draw, individual, sum)``.

    Returns:
        Shape ``(sum, sum)``, less what the control variates remove.
    """
    return _products(remaining_of(individuals, spreads))


def remaining_of(individuals: IndividualPosteriors, terms: Tensor) -> Tensor:
    """What control variates leave of terms of sums over the first of the draws, shape ``(draw,
    individual, sum)``.
    """
    factors, first = individuals.factors, slice(len(terms))
    if factors is None:
        return terms
    return remaining_terms(
        individuals.unconstrained[first],
        individuals.log_proposal[first],
        individuals.log_weights[first],
        factors[first],
        terms,
    )


def _products(terms: Tensor) -> Tensor:
    """Sums over draws and individuals of the products of terms ``(draw, individual, sum)``."""
    flat = terms.flatten(0, 1)
    return flat.T @ flat


class _Weighted(NamedTuple):
    """Draws ``(draw, individual, latent)``, their mean ``(individual, latent)``, what they lie from
    it, and their normalised weights and log weights ``(draw, individual)``.
    """

    draws: Tensor
    mean: Tensor
    offset: Tensor
    weights: Tensor
    log_weights: Tensor


def _weighted_draws(individuals: IndividualPosteriors, most: int | None) -> _Weighted:
    """The first draws."""
    if most is None:
        num_coefficients = num_products(individuals.unconstrained.shape[-1])
        most = max(FOLLOWING.max_draws, FOLLOWING.max_draws_per_coefficient * num_coefficients)
    log_weights, draws = individuals.log_weights[:most], individuals.unconstrained[:most]
    draws, _ = without_negligible(draws, log_weights)
    weights = normalized_weights(log_weights)
    mean = (weights.unsqueeze(-1) * draws).sum(0)
    return _Weighted(draws, mean, draws - mean, weights, log_weights)
