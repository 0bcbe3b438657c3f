r"""How the draws of every individual follow the population, fitted to them.

The regression of :mod:`pyro_amortized.population.following_draws` needs the derivatives of the
density in every individual parameter, at every draw.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..sampling.control_variates import remaining_terms
from ..sampling.importance_weights import effective_sample_size, normalized_weights
from ..sampling.individuals import IndividualPosteriors
from .draw_moves import fitted_moves, num_products
from .fixed_draws import is_negligible, replace_impossible_draws
from .following_draws import FOLLOWING, Following
from .observation_differences import ObservationDifferences, slopes_at


class Followed(NamedTuple):
    r"""How draws follow the population, and what shows it.

    Args:
        following: Their moves.
        slopes: Slopes of the log weights of the draws in the unconstrained population, if these
            follow it, shape ``(draw, individual, population)``; zero for draws of weight zero.
            None for a likelihood-free estimate.
        differences: Observations about the draws that they come from, or None.
    """

    following: Following
    slopes: Tensor | None
    differences: ObservationDifferences | None


def follow(individuals: IndividualPosteriors, scale: Tensor) -> Following:
    """How weighted draws move with the population. ``scale`` is the size of a large step in each
    unconstrained population parameter, shape ``(population,)``.
    """
    return followed(individuals, scale).following


def followed(individuals: IndividualPosteriors, scale: Tensor, most: int | None = None) -> Followed:
    r"""How weighted draws move with the population, and what shows it.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter, shape
            ``(population,)``.
        most: Number of draws of each individual that the regression uses. Default: as many as it
            needs.

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
    spread = covariance.diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-12)
    (num, d), p, zero = spread.shape, len(center), spread.new_zeros
    flows = bool(structure.coordinates(structure.shared).all())
    nothing = (zero(num, d, p), zero(num, d, d, p))
    unknown = torch.full((p, p), torch.nan).double()
    nowhere = (weighted.mean, spread, spread)
    stay = Following(center, *nothing, *nowhere, zero(num, p), unknown, flows)
    if structure.estimator == "likelihood-free":
        return Followed(stay, None, None)
    steps = (FOLLOWING.relative_step * scale, FOLLOWING.individual_step * spread)
    scores, gradients, differences = slopes_at(individuals, weighted.draws, *steps)
    effective = effective_sample_size(weighted.log_weights)
    directions, rates = fitted_moves(covariance, offset, gradients, -scores, weights, effective)
    # The slopes of the moved draws have the same mean as the scores, and less Monte Carlo error.
    slopes = scores + torch.einsum("kni,nip->knp", gradients, directions)
    slopes = slopes + torch.einsum("kni,nijp,knj->knp", gradients, rates, offset)
    slopes = slopes + rates.diagonal(dim1=1, dim2=2).sum(-1)
    slopes = slopes.masked_fill((weights == 0).unsqueeze(-1), 0.0).nan_to_num(0.0, 0.0, 0.0)
    means = torch.einsum("kn,knp->np", weights, slopes)
    spreads = weights.unsqueeze(-1) * (slopes - means)
    errors = len(weights) / individuals.num_draws * remaining_products(individuals, spreads)
    own = ~structure.coordinates(structure.shared) * scale  # moves that only the individuals make
    farthest = FOLLOWING.min_reach * (directions.abs() * own).amax(-1)
    moving = replace(stay, directions=directions, rates=rates, reach=spread.maximum(farthest))
    following = replace(moving, scores=means, score_covariance=errors)
    return Followed(following, slopes, differences)


def remaining_products(individuals: IndividualPosteriors, spreads: Tensor) -> Tensor:
    r"""Covariance of the Monte Carlo errors of sums over the draws of all individuals.

    Args:
        individuals: The draws.
        spreads: Terms of the sums at the first of the draws: their weight times the distance of a
            value from its weighted mean, shape ``(draw, individual, sum)``.

    Returns:
        Shape ``(sum, sum)``, less what the control variates remove.
    """
    factors, first = individuals.factors, slice(len(spreads))
    if factors is not None:
        spreads = remaining_terms(
            individuals.unconstrained[first],
            individuals.log_proposal[first],
            individuals.log_weights[first],
            factors[first],
            spreads,
        )
    terms = spreads.flatten(0, 1)
    return terms.T @ terms


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
    draws = replace_impossible_draws(draws, log_weights, is_negligible(log_weights))
    weights = normalized_weights(log_weights)
    mean = (weights.unsqueeze(-1) * draws).sum(0)
    return _Weighted(draws, mean, draws - mean, weights, log_weights)
