r"""The mean of importance weights with control variates.

For draws :math:`u_k \sim q`, the mean of the weights :math:`w = f / q` estimates
:math:`Z = \int f`. Every function h with a known integral gives a control variate :math:`h / q`,
whose mean is known. Here they are the products of a normal density with the mean m and covariance
:math:`L L^\top` of the target and of Hermite polynomials :math:`\mathrm{He}`,

.. math:: h_\alpha(u) = N(u; m, L L^\top) \prod_j \mathrm{He}_{\alpha_j}(z_j) / \sqrt{\alpha_j!},
          \qquad z = L^{-1}(u - m), \qquad \int h_\alpha = 1[\alpha = 0] .

With the coefficients :math:`\beta` of the regression of w on them,

.. math:: \hat Z = \beta_0 + \frac1K \sum_k
          \Big( w_k - \sum_\alpha \beta_\alpha\, h_\alpha(u_k) / q(u_k) \Big) .

What remains of the variance is what a Gram-Charlier expansion of the target leaves over: of a
nearly normal target, a hundredth or less. Half of the draws give the mean, the covariance and the
coefficients that are used with the other half, so that the estimate is unbiased. No density of the
model is evaluated.

References:
    Owen and Zhou (2000), Safe and effective importance sampling; Oates, Girolami, Chopin (2017),
    Control functionals for Monte Carlo integration.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics.cholesky import factored
from .importance_weights import (
    ImportanceEstimate,
    effective_sample_size,
    importance_estimate,
    normalized_weights,
)


@dataclass(frozen=True)
class ControlSettings:
    """Constants of the control variates."""

    # Largest degree of the polynomials. Skewness needs degree 3, a kurtosis degree 4.
    max_degree: int = 4
    # Draws per control variate in each half; with fewer draws the degree is lower.
    draws_per_variate: float = 6.0
    # Effective draws in each half that a mean and a covariance need, per parameter.
    effective_draws_per_parameter: float = 5.0
    # Largest part of the variance that may remain; else there are no control variates. A small
    # reduction is not worth the rare draws in which the control variates are large: of a target
    # with four modes, the error was underestimated by a fifth.
    max_remaining: float = 0.5
    # Largest factor on the error of the plain mean. Where the proposal is narrower than the normal
    # density, a few draws with large control variates can increase the error.
    max_increase: float = 1.5
    # Added to the normal equations, as a part of their diagonal.
    jitter: float = 1e-9
    # Draws times individuals times control variates that are evaluated together; limits the memory.
    max_values: int = 8_000_000


CONTROL = ControlSettings()


class _Half(NamedTuple):
    """Draws ``(individual, draw, latent)``, and log proposal densities and log weights
    ``(individual, draw)``, of half of the draws.
    """

    draws: Tensor
    log_proposal: Tensor
    log_weights: Tensor


def controlled_estimate(
    draws: Tensor, log_proposal: Tensor, log_weights: Tensor
) -> ImportanceEstimate:
    r"""As :func:`~pyro_amortized.sampling.importance_weights.importance_estimate`, with control
    variates where there are enough draws and the variance becomes smaller.

    ESS and Pareto k are those of the weights themselves.

    Args:
        draws: Shape ``(draw, individual, latent)``.
        log_proposal: Log density that they were drawn from, shape ``(draw, individual)``.
        log_weights: Same shape; -inf where the weight is zero.
    """
    plain = importance_estimate(log_weights)
    degree = _degree(len(draws) // 2, draws.shape[-1])
    if degree < 0:
        return plain
    powers = _powers(draws.shape[-1], degree)
    size = max(1, CONTROL.max_values // (len(draws) * len(powers)))
    parts = [
        _log_mean(draws[:, rows], log_proposal[:, rows], log_weights[:, rows], powers)
        for rows in torch.arange(draws.shape[1]).split(size)
    ]
    log_mean, error = (torch.cat(x) for x in zip(*parts, strict=True))
    # Errors of the mean, not of its logarithm, which are larger for small means.
    absolute = error * (log_mean - plain.log_mean).exp()
    usable = absolute < CONTROL.max_increase * plain.mc_error
    return ImportanceEstimate(
        torch.where(usable, log_mean, plain.log_mean),
        torch.where(usable, error, plain.mc_error),
        plain.ess,
        plain.pareto_k,
    )


def _degree(num_draws: int, num_latent: int) -> int:
    """The largest degree for which there are enough draws; -1 if there are not enough at all."""
    for degree in range(CONTROL.max_degree, -1, -1):
        if num_draws >= CONTROL.draws_per_variate * math.comb(num_latent + degree, degree):
            return degree
    return -1


def _powers(num_latent: int, degree: int) -> Sequence[tuple[int, ...]]:
    """The exponents of all polynomials up to a degree, that of degree zero first."""
    every = itertools.product(range(degree + 1), repeat=num_latent)
    return sorted((p for p in every if sum(p) <= degree), key=sum)


def _log_mean(
    draws: Tensor, log_proposal: Tensor, log_weights: Tensor, powers: Sequence[tuple[int, ...]]
) -> tuple[Tensor, Tensor]:
    """Log mean weight and its Monte Carlo error of some individuals, shape ``(individual,)``; the
    error is infinite where there are too few effective draws.
    """
    halves = [
        _Half(draws[start::2].transpose(0, 1), log_proposal[start::2].T, log_weights[start::2].T)
        for start in (0, 1)  # neighbours, because the draws are in the order of their sources
    ]
    results = [_mean(first, second, powers) for first, second in (halves, halves[::-1])]
    log_means = torch.stack([x for x, _ in results])
    variances = torch.stack([x for _, x in results])  # of the logarithms
    log_mean = log_means.logsumexp(0) - math.log(2)
    usable = (variances.isfinite() & log_means.isfinite()).all(0)
    error = torch.where(usable, variances.sum(0).sqrt() / 2, torch.inf)
    return log_mean, error


def _mean(first: _Half, second: _Half, powers: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Log mean weight of the second half, with coefficients from the first, and the variance of
    the logarithm.
    """
    d = first.draws.shape[-1]
    weights = normalized_weights(first.log_weights.T).T
    mean = (weights.unsqueeze(-1) * first.draws).sum(1, keepdim=True)
    offset = first.draws - mean
    covariance = (weights.unsqueeze(-1) * offset).transpose(1, 2) @ offset
    root = factored(covariance)
    reference = first.log_weights.logsumexp(1, keepdim=True) - math.log(first.draws.shape[1])
    basis, target = (
        (_variates(half, mean, root, powers), (half.log_weights - reference).exp())
        for half in (first, second)
    )
    coefficients = _regression(*basis)
    # Decided without the second half: to choose the smaller error would favour large estimates.
    helps = _remaining_in_new_draws(basis) < CONTROL.max_remaining * basis[1].var(1)
    coefficients = torch.where(helps[:, None, None], coefficients, 0.0)
    remaining = _remaining(target, coefficients)
    estimate = remaining.mean(1) + coefficients[:, 0, 0]
    variance = remaining.var(1) / remaining.shape[1] / estimate**2
    few = effective_sample_size(first.log_weights.T) < CONTROL.effective_draws_per_parameter * d
    usable = (estimate > 0) & ~few
    return estimate.log() + reference[:, 0], torch.where(usable, variance, torch.inf)


def _remaining(basis: tuple[Tensor, Tensor], coefficients: Tensor) -> Tensor:
    """The weights less their control variates, shape ``(individual, draw)``."""
    variates, values = basis
    return values - (coefficients.transpose(1, 2) @ variates).squeeze(1)


def _remaining_in_new_draws(basis: tuple[Tensor, Tensor]) -> Tensor:
    """Variance that remains in draws that gave no coefficients: each quarter of all draws gives
    those of the other one.
    """
    variates, values = basis
    quarters = [(variates[..., start::2].contiguous(), values[:, start::2]) for start in (0, 1)]
    remaining = [
        _remaining(second, _regression(*first)).var(1)
        for first, second in (quarters, quarters[::-1])
    ]
    return torch.stack(remaining).mean(0)


def _variates(half: _Half, mean: Tensor, root: Tensor, powers: Sequence[tuple[int, ...]]) -> Tensor:
    """The control variates, shape ``(individual, variate, draw)``."""
    d = mean.shape[-1]
    offset = (half.draws - mean).transpose(1, 2)
    z = torch.linalg.solve_triangular(root, offset, upper=False)  # (individual, latent, draw)
    log_det = root.diagonal(dim1=1, dim2=2).log().sum(-1, keepdim=True)
    log_normal = -0.5 * z.square().sum(1) - log_det - 0.5 * d * math.log(2 * math.pi)
    ratio = (log_normal - half.log_proposal).exp()
    hermite = [torch.ones_like(z), z]
    for n in range(1, CONTROL.max_degree):  # normalised: the mean of the squares is one
        following = (z * hermite[n] - math.sqrt(n) * hermite[n - 1]) / math.sqrt(n + 1)
        hermite.append(following)
    rows = ratio.new_empty(len(ratio), len(powers), ratio.shape[1])
    for row, power in zip(rows.unbind(1), powers, strict=True):
        factors = [hermite[e][:, j] for j, e in enumerate(power) if e]
        torch.mul(ratio, factors[0] if factors else 1.0, out=row)
        for factor in factors[1:]:
            row *= factor
    return rows


def _regression(variates: Tensor, values: Tensor) -> Tensor:
    """Coefficients, shape ``(individual, variate, 1)``, that minimise the variance of what
    remains.
    """
    centered = variates - variates.mean(-1, keepdim=True)
    squares = centered @ centered.transpose(1, 2)
    products = centered @ (values - values.mean(1, keepdim=True)).unsqueeze(-1)
    diagonal = squares.diagonal(dim1=1, dim2=2).clamp(min=1e-300)
    factor = factored(squares + CONTROL.jitter * diagonal.diag_embed())
    return torch.cholesky_solve(products, factor)
