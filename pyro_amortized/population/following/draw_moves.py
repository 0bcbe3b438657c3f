r"""Moves of weighted draws that make their log weights change least with the population.

The coefficients of the regression of -s, the slopes in the population, on g, the slopes in the
individual parameters, and on products of g and the draws: see
:mod:`pyro_amortized.population.following.following_draws`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.cholesky import factored, inverse_factor, positive_deviations
from ...numerics.weighted_regression import influences, regression


@dataclass(frozen=True)
class MoveSettings:
    r"""When there are enough draws for a regression.

    Args:
        draws_per_coefficient: Effective draws per coefficient. With seven parameters the regression
            on all products has 35 coefficients; with 160 effective draws its noise is larger than
            what it explains.
    """

    draws_per_coefficient: float = 5.0


MOVES = MoveSettings()


class Moves(NamedTuple):
    """How the draws of every individual move, and what the regression was made of.

    Args:
        directions: J, shape ``(individual, latent, population)``.
        rates: G, shape ``(individual, latent, latent, population)``.
        regressors: What the slopes were regressed on, with the change of the volume, so that their
            exact means are zero, shape ``(individual, draw, regressor)``; zero where there are
            fewer.
        influences: What every draw changes in the coefficients
            (:mod:`pyro_amortized.numerics.weighted_regression`), same shape.
    """

    directions: Tensor
    rates: Tensor
    regressors: Tensor
    influences: Tensor


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
    nothing = (target.new_zeros(shape[0], *shape[2:]), target.new_zeros(shape))
    none = target.new_zeros(*weights.T.shape, num_products(num_latent))
    moves = Moves(*nothing, none, none)
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


def standardized(root: Tensor, offset: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Draws and slopes in the coordinates in which a covariance is 1.

    Args:
        root: Cholesky factor of the covariance, shape ``(individual, latent, latent)``.
        offset: Draws from their mean, shape ``(draw, individual, latent)``.
        gradients: Gradients of their log densities, same shape.

    Returns:
        The inverse of the factor, and the draws and the gradients in these coordinates.
    """
    inverse = inverse_factor(root)
    standard = torch.einsum("nij,knj->kni", inverse, offset)
    return inverse, standard, torch.einsum("nji,knj->kni", root, gradients)


def coefficients(
    slopes: Tensor, products: Tensor, target: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Coefficients of moves and of stretches; of moves alone where those of both are not finite.

    Args:
        slopes: Regressors of the moves, shape ``(draw, individual, latent)``.
        products: Regressors of the stretches, shape ``(draw, individual, stretch)``.
        target: Shape ``(draw, individual, parameter)``.
        weights: Normalised weights, shape ``(draw, individual)``.

    Returns:
        Of the moves, shape ``(individual, latent, parameter)``; of the stretches, shape
        ``(individual, stretch, parameter)``, zero where there are none; and for which individuals
        there are stretches, shape ``(individual, 1, 1)``.
    """
    both = regression(torch.cat([slopes, products], -1), target, weights)
    alone = regression(slopes, target, weights)
    d, finite = slopes.shape[-1], both.isfinite().flatten(1).all(1)[:, None, None]
    moves = torch.where(finite, both[:, :d], alone).nan_to_num(0.0, 0.0, 0.0)
    return moves, torch.where(finite, both[:, d:], 0.0), finite


def _stretched(
    covariance: Tensor, offset: Tensor, gradients: Tensor, target: Tensor, weights: Tensor
) -> Moves:
    """Moves and symmetric stretches, in coordinates in which the covariance is 1; moves alone where
    the products are not finite.
    """
    root = factored(covariance)
    d, num_parameters = offset.shape[-1], target.shape[-1]
    inverse, standard, slopes = standardized(root, offset, gradients)
    row, column = torch.tril_indices(d, d)
    products = slopes[..., row] * standard[..., column]
    products = (products + slopes[..., column] * standard[..., row]) / 2
    location, lower, finite = coefficients(slopes, products, target, weights)
    regressed = _regressed(slopes, products, (row == column).to(slopes), weights, finite)
    half = lower.new_zeros(len(lower), d, d, num_parameters)
    half[:, row, column] = lower / 2
    stretch = half + half.transpose(1, 2)
    directions = torch.einsum("nij,njp->nip", root, location)
    rates = torch.einsum("nia,nabp,nbj->nijp", root, stretch, inverse)
    return Moves(directions, rates, *regressed)


def _stretched_separately(
    covariance: Tensor, offset: Tensor, gradients: Tensor, target: Tensor, weights: Tensor
) -> Moves:
    """Moves, and a stretch of every parameter; moves alone where the products are not finite."""
    d, spread = offset.shape[-1], positive_deviations(covariance)
    slopes, products = gradients * spread, gradients * offset
    location, stretch, finite = coefficients(slopes, products, target, weights)
    rates = torch.diag_embed(stretch.transpose(1, 2)).permute(0, 2, 3, 1)
    regressed = _regressed(slopes, products, slopes.new_ones(d), weights, finite)
    return Moves(spread.unsqueeze(-1) * location, rates, *regressed)


def _shifted(
    covariance: Tensor, offset: Tensor, gradients: Tensor, target: Tensor, weights: Tensor
) -> Moves:
    """Moves without a stretch."""
    spread = positive_deviations(covariance)
    slopes = gradients * spread
    location = regression(slopes, target, weights).nan_to_num(0.0, 0.0, 0.0)
    nothing = target.new_zeros(*covariance.shape, target.shape[-1])
    return Moves(
        spread.unsqueeze(-1) * location, nothing, *_padded(slopes, weights, slopes.shape[-1])
    )


def _regressed(
    slopes: Tensor, products: Tensor, trace: Tensor, weights: Tensor, finite: Tensor
) -> tuple[Tensor, Tensor]:
    """Regressors and influences with products where these have coefficients, else without.
    ``trace`` says which products belong to a single parameter: their stretches change the volume.
    """
    num_latent = slopes.shape[-1]
    x, changes = _padded(torch.cat([slopes, products], -1), weights, num_latent)
    constant = torch.nn.functional.pad(trace, (num_latent, x.shape[-1] - num_latent - len(trace)))
    alone = _padded(slopes, weights, num_latent)
    return torch.where(finite, x + constant, alone[0]), torch.where(finite, changes, alone[1])


def _padded(x: Tensor, weights: Tensor, num_latent: int) -> tuple[Tensor, Tensor]:
    """Regressors and influences, shape ``(individual, draw, regressor)`` with as many as there are
    at most; zero where there is no regression.
    """
    missing = num_products(num_latent) - x.shape[-1]
    changes = influences(x, weights).nan_to_num(0.0, 0.0, 0.0)
    first, second = (
        torch.nn.functional.pad(part.transpose(0, 1), (0, missing)) for part in (x, changes)
    )
    return first, second
