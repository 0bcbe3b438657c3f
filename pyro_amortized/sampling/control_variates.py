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

The estimate is linear in the weights, :math:`\hat Z = \frac1K \sum_k c_k w_k`, with factors c that
depend on the draws and the proposal alone. The same factors therefore reduce the variance of other
integrals of nearly normal functions times polynomials: of the likelihood at other populations, and
of its first and second derivatives (decision 072).

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
    r"""Constants of the control variates.

    Args:
        max_degree: Largest degree of the polynomials. Skewness needs degree 3, a kurtosis degree 4.
        draws_per_variate: Draws per control variate in each half; with fewer draws the degree is
            lower.
        effective_draws_per_parameter: Effective draws in each half that a mean and a covariance
            need, per parameter.
        max_remaining: Largest part of the variance that may remain; else there are no control
            variates. A small reduction is not worth the rare draws in which the control variates
            are large: of a target with four modes, the error was underestimated by a fifth.
        max_increase: Largest factor on the error of the plain mean. Where the proposal is narrower
            than the normal density, a few draws with large control variates can increase the error.
        jitter: Added to the normal equations, as a part of their diagonal.
        max_values: Draws times individuals times control variates that are evaluated together;
            limits the memory.
    """

    max_degree: int = 4
    draws_per_variate: float = 6.0
    effective_draws_per_parameter: float = 5.0
    max_remaining: float = 0.5
    max_increase: float = 1.5
    jitter: float = 1e-9
    max_values: int = 8_000_000


CONTROL = ControlSettings()


class ControlledEstimate(NamedTuple):
    r"""An estimate with control variates, and how it weighs the draws.

    Args:
        estimate: Log mean weight and its error; ESS and Pareto k are those of the weights.
        factors: c, shape ``(draw, individual)``: the estimate is the mean of the weights times
            these factors. One where there are no control variates; some may be negative.
    """

    estimate: ImportanceEstimate
    factors: Tensor


class _Half(NamedTuple):
    """Draws ``(individual, draw, latent)``, and log proposal densities and log weights
    ``(individual, draw)``, of half of the draws.
    """

    draws: Tensor
    log_proposal: Tensor
    log_weights: Tensor


class _Fitted(NamedTuple):
    """Control variates of two halves ``(individual, variate, draw)``, whose mean and covariance are
    those of the first, and the inverse normal equations of the first, as a Cholesky factor.
    """

    first: Tensor
    second: Tensor
    factor: Tensor


def controlled_estimate(
    draws: Tensor, log_proposal: Tensor, log_weights: Tensor
) -> ControlledEstimate:
    r"""As :func:`~pyro_amortized.sampling.importance_weights.importance_estimate`, with control
    variates where there are enough draws and the variance becomes smaller.

    Args:
        draws: Shape ``(draw, individual, latent)``.
        log_proposal: Log density that they were drawn from, shape ``(draw, individual)``.
        log_weights: Same shape; -inf where the weight is zero.
    """
    plain = importance_estimate(log_weights)
    powers = _powers(len(draws) // 2, draws.shape[-1])
    if not powers:
        return ControlledEstimate(plain, torch.ones_like(log_weights))
    parts = [
        _controlled(_halves(draws[:, x], log_proposal[:, x], log_weights[:, x]), powers)
        for x in _parts(draws, powers)
    ]
    log_mean, error, factors = (torch.cat(x, -1) for x in zip(*parts, strict=True))
    # Errors of the mean, not of its logarithm, which are larger for small means.
    absolute = error * (log_mean - plain.log_mean).exp()
    usable = absolute < CONTROL.max_increase * plain.mc_error
    estimate = ImportanceEstimate(
        torch.where(usable, log_mean, plain.log_mean),
        torch.where(usable, error, plain.mc_error),
        plain.ess,
        plain.pareto_k,
    )
    return ControlledEstimate(estimate, torch.where(usable, factors, 1.0))


def remaining_terms(
    draws: Tensor, log_proposal: Tensor, log_weights: Tensor, factors: Tensor, terms: Tensor
) -> Tensor:
    r"""What the control variates leave of the terms of sums over the draws.

    Args:
        draws: Shape ``(draw, individual, latent)``.
        log_proposal: Log density that they were drawn from, shape ``(draw, individual)``.
        log_weights: Same shape.
        factors: Of :func:`controlled_estimate`, same shape.
        terms: Terms of the sums, proportional to the weights, shape ``(draw, individual, sum)``;
            their sums are zero.

    Returns:
        Same shape. The squares of what remains add up to the variance of the sum.
    """
    powers = _powers(len(draws) // 2, draws.shape[-1])
    controlled = (factors != 1).any(0).nonzero()[:, 0]
    if not powers or not len(controlled):
        return terms
    remaining = terms.clone()
    for x in _parts(draws[:, controlled], powers):
        rows = controlled[x]
        halves = _halves(draws[:, rows], log_proposal[:, rows], log_weights[:, rows])
        values = [terms[start::2, rows].permute(1, 2, 0) for start in (0, 1)]
        for start in (0, 1):  # with coefficients of the other half
            fitted = _fit(halves[1 - start], halves[start], powers)
            coefficients = _coefficients(fitted.first, fitted.factor, values[1 - start])
            rest = _remaining(fitted.second, values[start], coefficients)
            remaining[start::2, rows] = (rest - rest.mean(-1, keepdim=True)).permute(2, 0, 1)
    return remaining


def _parts(draws: Tensor, powers: Sequence[tuple[int, ...]]) -> Sequence[Tensor]:
    """Individuals that are computed together."""
    size = max(1, CONTROL.max_values // (len(draws) * len(powers)))
    return torch.arange(draws.shape[1]).split(size)


def _halves(draws: Tensor, log_proposal: Tensor, log_weights: Tensor) -> list[_Half]:
    return [
        _Half(draws[start::2].transpose(0, 1), log_proposal[start::2].T, log_weights[start::2].T)
        for start in (0, 1)  # neighbours, because the draws are in the order of their sources
    ]


def _powers(num_draws: int, num_latent: int) -> Sequence[tuple[int, ...]]:
    """The exponents of all polynomials up to the largest degree for which there are enough draws,
    that of degree zero first; empty if there are not enough at all.
    """
    for degree in range(CONTROL.max_degree, -1, -1):
        if num_draws >= CONTROL.draws_per_variate * math.comb(num_latent + degree, degree):
            every = itertools.product(range(degree + 1), repeat=num_latent)
            return sorted((p for p in every if sum(p) <= degree), key=sum)
    return []


def _controlled(
    halves: list[_Half], powers: Sequence[tuple[int, ...]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log mean weight of some individuals and its Monte Carlo error, shape ``(individual,)``, and
    the factors, shape ``(draw, individual)``; the error is infinite where there are too few
    effective draws.
    """
    results = [_mean(halves[x], halves[1 - x], powers) for x in (0, 1)]
    log_means, variances, factors = zip(*results, strict=True)  # variances of the logarithms
    log_mean = torch.stack(log_means).logsumexp(0) - math.log(2)
    usable = (torch.stack(variances).isfinite() & torch.stack(log_means).isfinite()).all(0)
    error = torch.where(usable, torch.stack(variances).sum(0).sqrt() / 2, torch.inf)
    num_draws = sum(x.shape[1] for x in factors)
    every = factors[0].new_ones(num_draws, len(error))
    every[::2], every[1::2] = factors[0].T, factors[1].T
    return log_mean, error, every


def _mean(
    first: _Half, second: _Half, powers: Sequence[tuple[int, ...]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log mean weight of the second half, with coefficients from the first, the variance of the
    logarithm, and the factors of the first half, shape ``(individual, draw)``.
    """
    fitted = _fit(first, second, powers)
    reference = first.log_weights.logsumexp(1, keepdim=True) - math.log(first.draws.shape[1])
    known, target = ((x.log_weights - reference).exp().unsqueeze(1) for x in (first, second))
    # Decided without the second half: to choose the smaller error would favour large estimates.
    remaining = _remaining_in_new_draws(fitted.first, known)
    helps = remaining < CONTROL.max_remaining * known.var(-1)
    coefficients = _coefficients(fitted.first, fitted.factor, known)
    coefficients = torch.where(helps.unsqueeze(-1), coefficients, 0.0)
    rest = _remaining(fitted.second, target, coefficients).squeeze(1)
    estimate = rest.mean(1) + coefficients[:, 0, 0]
    variance = rest.var(1) / rest.shape[1] / estimate**2
    few = effective_sample_size(first.log_weights.T)
    few = few < CONTROL.effective_draws_per_parameter * first.draws.shape[-1]
    usable = (estimate > 0) & ~few
    factors = torch.where(helps, _factors(fitted), 1.0)
    log_mean = estimate.log() + reference[:, 0]
    return log_mean, torch.where(usable, variance, torch.inf), factors


def _fit(first: _Half, second: _Half, powers: Sequence[tuple[int, ...]]) -> _Fitted:
    """Control variates with the mean and the covariance of the first half."""
    weights = normalized_weights(first.log_weights.T).T
    mean = (weights.unsqueeze(-1) * first.draws).sum(1, keepdim=True)
    offset = first.draws - mean
    covariance = (weights.unsqueeze(-1) * offset).transpose(1, 2) @ offset
    root = factored(covariance)
    variates = [_variates(half, mean, root, powers) for half in (first, second)]
    return _Fitted(variates[0], variates[1], _normal_factor(variates[0]))


def _factors(fitted: _Fitted) -> Tensor:
    """Factors of the draws of the first half, from the means of the second, shape ``(individual,
    draw)``: the estimate is linear in the weights.
    """
    expected = torch.zeros_like(fitted.first[..., :1])
    expected[:, 0] = 1.0
    missing = expected - fitted.second.mean(-1, keepdim=True)
    centered = fitted.first - fitted.first.mean(-1, keepdim=True)
    solution = torch.cholesky_solve(missing, fitted.factor)
    return 1 + centered.shape[-1] * (solution.transpose(1, 2) @ centered).squeeze(1)


def _remaining(variates: Tensor, values: Tensor, coefficients: Tensor) -> Tensor:
    """Values less their control variates, shape ``(individual, value, draw)``."""
    return values - coefficients.transpose(1, 2) @ variates


def _remaining_in_new_draws(variates: Tensor, values: Tensor) -> Tensor:
    """Variance that remains in draws that gave no coefficients, shape ``(individual, 1)``: each
    quarter of all draws gives those of the other one.
    """
    quarters = [(variates[..., x::2].contiguous(), values[..., x::2]) for x in (0, 1)]
    remaining = []
    for (known, known_values), second in (quarters, quarters[::-1]):
        coefficients = _coefficients(known, _normal_factor(known), known_values)
        rest = _remaining(*second, coefficients)
        remaining.append(rest.var(-1))
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


def _normal_factor(variates: Tensor) -> Tensor:
    """Cholesky factor of the normal equations of the control variates."""
    centered = variates - variates.mean(-1, keepdim=True)
    squares = centered @ centered.transpose(1, 2)
    diagonal = squares.diagonal(dim1=1, dim2=2).clamp(min=1e-300)
    return factored(squares + CONTROL.jitter * diagonal.diag_embed())


def _coefficients(variates: Tensor, factor: Tensor, values: Tensor) -> Tensor:
    """Coefficients, shape ``(individual, variate, value)``, that minimise the variance of what
    remains of values, shape ``(individual, value, draw)``; ``factor`` is that of the normal
    equations.
    """
    centered = variates - variates.mean(-1, keepdim=True)
    products = centered @ (values - values.mean(-1, keepdim=True)).transpose(1, 2)
    return torch.cholesky_solve(products, factor)
