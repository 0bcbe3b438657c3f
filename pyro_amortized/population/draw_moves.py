r"""Moves of weighted draws that make their log weights change least with the population.

The coefficients of the regression of -s, the slopes in the population, on g, the slopes in the
individual parameters, and on products of g and the draws: see
:mod:`pyro_amortized.population.following_draws`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics.cholesky import factored
from ..numerics.weighted_regression import regression


@dataclass(frozen=True)
class MoveSettings:
    """When there are enough draws for a regression."""

    # Effective draws per coefficient. With seven parameters the regression on all products has 35
    # coefficients; with 160 effective draws its noise is larger than what it explains.
    draws_per_coefficient: float = 5.0


MOVES = MoveSettings()


class Moves(NamedTuple):
    """Directions J, shape ``(individual, latent, population)``, and rates G, shape ``(individual,
    latent, latent, population)``, of the draws of every individual.
    """

    directions: Tensor
    rates: Tensor


def num_products(num_latent: int) -> int:
    """Coefficients of the regression on the slopes and on their products with all parameters."""
    return num_latent + num_latent * (num_latent + 1) // 2


def fitted_moves(
    covariance: Tensor,
    offset: Tensor,
    gradients: Tensor,
    target: Tensor,
    weights: Tensor,
    effective: Tensor,
) -> Moves:
    r"""The moves of every individual, with as many coefficients as its draws allow.

    Args:
        covariance: Posterior covariance, shape ``(individual, latent, latent)``.
        offset: Draws less their mean, shape ``(draw, individual, latent)``.
        gradients: Slopes of the log density in the individual parameters, same shape.
        target: Negative slopes in the population, shape ``(draw, individual, population)``.
        weights: Normalised weights, shape ``(draw, individual)``.
        effective: Effective draws, shape ``(individual,)``.

    Returns:
        With the products of all pairs of parameters, with those of each parameter with itself, or
        without products; zero where a regression has no solution.
    """
    num_latent = offset.shape[-1]
    per_coefficient = effective / MOVES.draws_per_coefficient
    all_pairs = per_coefficient >= num_products(num_latent)
    separate = ~all_pairs & (per_coefficient >= 2 * num_latent)
    shape = (*covariance.shape, target.shape[-1])
    moves = Moves(target.new_zeros(shape[0], *shape[2:]), target.new_zeros(shape))
    for rows, fit in (
        (all_pairs, _stretched),
        (separate, _stretched_separately),
        (~all_pairs & ~separate, _shifted),
    ):
        if bool(rows.any()):
            parts = (offset[:, rows], gradients[:, rows], target[:, rows], weights[:, rows])
            fitted = fit(covariance[rows], *parts)
            moves = Moves(*(_placed(x, rows, new) for x, new in zip(moves, fitted, strict=True)))
    return moves


def _placed(old: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    """``old`` with ``new`` in some rows."""
    return old.index_copy(0, rows.nonzero()[:, 0], new)


def _stretched(
    covariance: Tensor, offset: Tensor, gradients: Tensor, target: Tensor, weights: Tensor
) -> Moves:
    """Moves and symmetric stretches, in coordinates in which the covariance is 1; moves alone where
    the products are not finite.
    """
    root = factored(covariance)
    d, num_parameters = offset.shape[-1], target.shape[-1]
    identity = torch.eye(d).to(root).expand_as(root)
    inverse = torch.linalg.solve_triangular(root, identity, upper=False)
    standard = torch.einsum("nij,knj->kni", inverse, offset)
    slopes = torch.einsum("nji,knj->kni", root, gradients)
    row, column = torch.tril_indices(d, d)
    products = slopes[..., row] * standard[..., column]
    products = (products + slopes[..., column] * standard[..., row]) / 2
    both = regression(torch.cat([slopes, products], -1), target, weights)
    alone = regression(slopes, target, weights)
    finite = both.isfinite().flatten(1).all(1)[:, None, None]
    location = torch.where(finite, both[:, :d], alone).nan_to_num(0.0, 0.0, 0.0)
    lower = torch.where(finite, both[:, d:], 0.0)
    half = lower.new_zeros(len(lower), d, d, num_parameters)
    half[:, row, column] = lower / 2
    stretch = half + half.transpose(1, 2)
    directions = torch.einsum("nij,njp->nip", root, location)
    return Moves(directions, torch.einsum("nia,nabp,nbj->nijp", root, stretch, inverse))


def _stretched_separately(
    covariance: Tensor, offset: Tensor, gradients: Tensor, target: Tensor, weights: Tensor
) -> Moves:
    """Moves, and a stretch of every parameter; moves alone where the products are not finite."""
    d, spread = offset.shape[-1], _spread(covariance)
    slopes = gradients * spread
    both = regression(torch.cat([slopes, gradients * offset], -1), target, weights)
    alone = regression(slopes, target, weights)
    finite = both.isfinite().flatten(1).all(1)[:, None, None]
    location = torch.where(finite, both[:, :d], alone).nan_to_num(0.0, 0.0, 0.0)
    stretch = torch.where(finite, both[:, d:], 0.0)
    rates = torch.diag_embed(stretch.transpose(1, 2)).permute(0, 2, 3, 1)
    return Moves(spread.unsqueeze(-1) * location, rates)


def _shifted(
    covariance: Tensor, offset: Tensor, gradients: Tensor, target: Tensor, weights: Tensor
) -> Moves:
    """Moves without a stretch."""
    spread = _spread(covariance)
    location = regression(gradients * spread, target, weights).nan_to_num(0.0, 0.0, 0.0)
    directions = spread.unsqueeze(-1) * location
    return Moves(directions, target.new_zeros(*covariance.shape, target.shape[-1]))


def _spread(covariance: Tensor) -> Tensor:
    return covariance.diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-12)
