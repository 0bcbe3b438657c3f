r"""Scores and information of the individuals on draws that follow the population, and their bias.

The score is the mean of the slopes :math:`r_k` of the log weights,
:math:`\hat S = \sum_k v_k r_k / \sum_k v_k`, where v are the weights, times the factors of the
control variates where these help (decision 072). Its bias, of first order in the inverse number of
draws, has two parts:

.. math:: E\,\hat S - S \approx -\sum_k (w x)_k^\top d_k\, w_k (r_k - \hat S)
          - \sum_k w_k^2 (r_k - \hat S),

with weights w that are normalised. The moves of the draws come from a regression of the slopes on x
on the same draws, in whose coefficients a draw changes :math:`d_k`
(:mod:`pyro_amortized.numerics.weighted_regression`); :math:`(w x)_k` is what control variates leave
of the terms of the mean of x. And a ratio of means has a bias, of which they leave next to nothing.
A bias does not average out over the individuals: its part of a standard error grows with the square
root of their number (decision 075).

The information contains the variance of the slopes, which the moves were chosen to make small on
the same draws: it is too large. Without draw k in the regression its slope would be
:math:`(1 + l_k)(r_k - \hat S)`, with :math:`l_k = (w x)_k^\top d_k`. And the logarithm of a mean of
weights has a bias of half of their relative variance, whose curvature is part of the second term
(decision 080):

.. math:: B = \sum_k w_k\, (2 l_k + l_k^2)\, (r_k - \hat S)(r_k - \hat S)^\top
          + \sum_k w_k^2 \big(2 (r_k - \hat S)(r_k - \hat S)^\top - V \big), \qquad
          V = \sum_k w_k (r_k - \hat S)(r_k - \hat S)^\top .
"""

import torch
from torch import Tensor

from ...sampling.importance_weights import MIN_CONTROLLED
from ...sampling.individuals import IndividualPosteriors


def scores_of(
    individuals: IndividualPosteriors, slopes: Tensor, weights: Tensor, left: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The scores less their bias, and the bias on all draws.

    Args:
        individuals: The draws.
        slopes: Slopes of the log weights of the first of the draws, shape ``(draw, individual,
            population)``.
        weights: Normalised weights of these draws, shape ``(draw, individual)``.
        left: The products of what is left of the terms of the regressors and of the changes
            :math:`d_k`, same shape.

    Returns:
        Two tensors of shape ``(individual, population)``.
    """
    controlled, is_plain = weights, _is_plain(individuals, weights)
    if individuals.factors is not None:
        controlled = individuals.factors[: len(weights)] * weights
        controlled = controlled / controlled.sum(0).clamp(min=MIN_CONTROLLED)
    scores = (controlled.unsqueeze(-1) * slopes).sum(0)
    shares = weights * (left + weights * is_plain)
    bias = -(shares.unsqueeze(-1) * (slopes - scores)).sum(0).nan_to_num(0.0, 0.0, 0.0)
    return scores - bias, len(weights) / individuals.num_draws * bias


def information_bias(
    individuals: IndividualPosteriors, slopes: Tensor, weights: Tensor, left: Tensor
) -> Tensor:
    """What the information on the moved draws is too large by, shape ``(individual, population,
    population)``; arguments as in :func:`scores_of`.
    """
    offset = slopes - (weights.unsqueeze(-1) * slopes).sum(0)
    leverage = left.clamp(0.0, 1.0)
    own = weights.square() * _is_plain(individuals, weights)
    shares = weights * (2 * leverage + leverage.square()) + 2 * own - own.sum(0) * weights
    bias = torch.einsum("kn,knp,knq->npq", shares, offset, offset)
    return len(weights) / individuals.num_draws * bias.nan_to_num(0.0, 0.0, 0.0)


def _is_plain(individuals: IndividualPosteriors, weights: Tensor) -> Tensor:
    """One for individuals without control variates, else zero."""
    if individuals.factors is None:
        return torch.ones_like(weights[0])
    return (individuals.factors[: len(weights)] == 1).all(0).to(weights)
