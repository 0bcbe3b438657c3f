r"""Importance weights: their mean, its Monte Carlo error, and how far they can be trusted.

For log weights :math:`\ell_k = \log w_k` of draws from a proposal,

.. math:: \log \hat Z = \log \frac1K \sum_k w_k, \qquad
          \mathrm{ESS} = \frac{(\sum_k w_k)^2}{\sum_k w_k^2}, \qquad
          \mathrm{se}(\log \hat Z) \approx \sqrt{\frac{K / \mathrm{ESS} - 1}{K - 1}},

and Pareto k is the shape of a generalised Pareto distribution fitted to the largest weights. Takes
and gives tensors whose first dimension is the draws.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class ParetoSettings:
    r"""Constants of Pareto k, after Vehtari et al. (2024).

    Args:
        limit: Above it the mean weight is not reliable.
        finite_variance: Above it the weights have no finite variance.
        max_tail_share: Largest share of the draws that is in the tail.
        tail_factor: The tail has at most this multiple of the square root of the number of draws.
        min_tail: Smallest number of weights that a distribution is fitted to.
        min_relative_excess: Weights in the tail whose excess is a smaller part of the largest one
            equal the threshold.
        prior_shape: Value that estimates of k are drawn towards.
        prior_weight: Number of values that this counts for.
        num_points: Points of the quadrature over its other parameter, besides the root of the
            number of values.
        max_columns: Columns of a table that are fitted in one call.
    """

    limit: float = 0.7
    finite_variance: float = 0.5
    max_tail_share: float = 0.2
    tail_factor: float = 3.0
    min_tail: int = 5
    min_relative_excess: float = 1e-12
    prior_shape: float = 0.5
    prior_weight: float = 10.0
    num_points: int = 30
    max_columns: int = 4096


PARETO = ParetoSettings()
# Smallest mean of weights times factors, relative to that of the weights. Far from the population
# of the draws some sums with negative factors are not positive.
MIN_CONTROLLED = 0.1


@dataclass(frozen=True, eq=False)
class ImportanceEstimate:
    r"""Estimate of :math:`\log Z` from importance weights; every field has the batch shape of the
    weights.

    Args:
        log_mean: Log of the mean weight.
        mc_error: Monte Carlo standard error of ``log_mean`` (delta method); inf where no weight is
            positive.
        ess: Effective sample size, between 0 and the number of draws.
        pareto_k: Shape of the weights' tail: below 0.7 the estimate is reliable. -inf where the
            weights are all equal, inf where they cannot be judged (fewer than 25 draws, or fewer
            than 5 positive weights).
    """

    log_mean: Tensor
    mc_error: Tensor
    ess: Tensor
    pareto_k: Tensor


def importance_estimate(log_weights: Tensor) -> ImportanceEstimate:
    r"""Mean of importance weights with its error and its diagnostics.

    Args:
        log_weights: Shape ``(draw, *batch)``. A weight of -inf stays and counts; NaN counts as
            -inf.

    Returns:
        The estimate, shape ``batch``.

    Example:
        >>> estimate = importance_estimate(torch.zeros(100, 2))
        >>> estimate.log_mean, estimate.ess.round()
        (tensor([0., 0.]), tensor([100., 100.]))

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling.
    """
    log_weights = finite_or_zero_weight(log_weights.detach())
    num_draws = log_weights.shape[0]
    log_mean = log_weights.logsumexp(0) - math.log(num_draws)
    ess = effective_sample_size(log_weights)
    variance = (num_draws / ess - 1).clamp(min=0) / max(num_draws - 1, 1)
    pareto_k = _pareto_k(log_weights.reshape(num_draws, -1)).to(log_weights.dtype)
    return ImportanceEstimate(
        log_mean=log_mean,
        mc_error=variance.sqrt(),
        ess=ess,
        pareto_k=pareto_k.reshape(log_mean.shape),
    )


def log_mean_difference(log_weights: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    r"""Difference of two log mean weights of the same draws, with its Monte Carlo error.

    .. math:: \mathrm{se}^2 \approx \sum_k (\bar w_k - \bar w_k')^2

    for weights that are normalised to one each: errors that both have in common cancel.

    Args:
        log_weights: Shape ``(draw, *batch)``.
        other: The weights to compare with, same shape.

    Returns:
        ``log mean(w) - log mean(w')`` and its error, shape ``batch``.

    Example:
        >>> log_weights = torch.randn(100, 3)
        >>> difference, error = log_mean_difference(log_weights + 1.0, log_weights)
        >>> difference.round(decimals=4), bool(error.max() < 1e-6)
        (tensor([1., 1., 1.]), True)
    """
    log_ratio = log_weights.logsumexp(0) - other.logsumexp(0)
    difference = normalized_weights(log_weights) - normalized_weights(other)
    error = difference.pow(2).sum(0).sqrt()
    return log_ratio, torch.where(log_ratio.isfinite(), error, torch.inf)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Effective sample size over the first dimension; 0 where no weight is positive."""
    ess = (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()
    return ess.nan_to_num(0.0)


def finite_or_zero_weight(log_weights: Tensor) -> Tensor:
    """Turn NaN (and +inf, which no density gives) into a weight of zero."""
    return log_weights.masked_fill(log_weights.isnan() | (log_weights == math.inf), -math.inf)


def normalized_weights(log_weights: Tensor) -> Tensor:
    """Weights that sum to one over the first dimension; equal ones where no weight is positive."""
    weights = finite_or_zero_weight(log_weights).softmax(0)
    return weights.nan_to_num(1.0 / log_weights.shape[0])


def weighted_moments(draws: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Mean and standard deviation of weighted draws, each with its Monte Carlo error.

    Args:
        draws: Shape ``(draw, *batch, parameter)``.
        weights: Normalised weights, shape ``(draw, *batch)``.

    Returns:
        Mean, standard deviation, error of the mean, error of the standard deviation; ``(*batch,
        parameter)``.
    """
    w = weights.unsqueeze(-1)
    mean = (w * draws).sum(0)
    square = (draws - mean) ** 2
    variance = (w * square).sum(0)
    sd = variance.sqrt()
    mean_error = (w**2 * square).sum(0).sqrt()
    sd_error = (w**2 * (square - variance) ** 2).sum(0).sqrt() / (2 * sd)
    return mean, sd, mean_error, sd_error


def resample(weights: Tensor, num_draws: int, generator: Generator) -> Tensor:
    r"""Indices of an equally weighted sample, by systematic resampling: a draw occurs as often as
    its weight times the number of draws says, rounded up or down.

    Args:
        weights: Normalised weights, shape ``(draw, batch)``.
        num_draws: Number of draws wanted.
        generator: Source of randomness.

    Returns:
        Indices into the draws, in random order, shape ``(num_draws, batch)``.

    References:
        Douc, Cappe, Moulines (2005), Comparison of resampling schemes for particle filtering.
    """
    cumulative = weights.T.cpu().double().cumsum(1)
    num = len(cumulative)
    start = torch.rand(num, 1, generator=generator, dtype=torch.float64)
    points = cumulative[:, -1:] * (torch.arange(num_draws) + start) / num_draws
    index = torch.searchsorted(cumulative, points, right=True).clamp(max=len(weights) - 1)
    order = torch.rand(num, num_draws, generator=generator).argsort(1)
    return index.gather(1, order).T.to(weights.device)


def _pareto_k(log_weights: Tensor) -> Tensor:
    """Pareto k of each column of weights ``(draw, column)``."""
    num_draws, num = log_weights.shape
    largest = PARETO.max_tail_share * num_draws, PARETO.tail_factor * math.sqrt(num_draws)
    tail = int(min(largest))
    if tail < PARETO.min_tail:
        return log_weights.new_full((num,), math.inf)
    top = log_weights.topk(tail + 1, 0).values.flip(0)
    weights = (top - top[-1]).double().exp()
    excess = weights[1:] - weights[0]
    count = (excess > PARETO.min_relative_excess * excess[-1]).sum(0)
    # The largest weight is one here. If the fifth is above a half, the weights have no tail.
    bounded = torch.where(weights[-PARETO.min_tail] > 0.5, -math.inf, math.inf)
    result = torch.where(count < PARETO.min_tail, bounded, torch.nan).double()
    result[(log_weights > -math.inf).sum(0) <= tail] = math.inf
    for size in count[result.isnan()].unique().tolist():
        columns = (result.isnan() & (count == size)).nonzero()[:, 0]
        for part in columns.split(PARETO.max_columns):
            result[part] = generalized_pareto_shape(excess[tail - size :, part])
    return result


def generalized_pareto_shape(excess: Tensor) -> Tensor:
    r"""Shape k of a generalised Pareto distribution, for every column of a table.

    Args:
        excess: Positive values in increasing order, shape ``(value, column)``.

    Returns:
        k, shape ``(column,)``, drawn towards 0.5 with the weight of ten values.

    References:
        Zhang and Stephens (2009), A new and efficient estimation method for the generalized Pareto
        distribution; the weak prior of Vehtari et al. (2024).
    """
    n, m = len(excess), PARETO.num_points + int(math.sqrt(len(excess)))
    steps = torch.arange(1, m + 1, dtype=excess.dtype, device=excess.device).unsqueeze(-1)
    b = (1.0 - (m / (steps - 0.5)).sqrt()) / (3.0 * excess[int(n / 4 - 0.5)]) + 1 / excess[-1]
    k = torch.log1p(-b.unsqueeze(1) * excess).mean(1)
    fit = n * ((-b / k).log() - k - 1.0)
    weights = fit.softmax(0)
    weights = torch.where(weights > 1e-30, weights, 0.0)
    best = (b * weights).sum(0) / weights.sum(0)
    shape = torch.log1p(-best * excess).mean(0)
    prior = PARETO.prior_weight
    return shape * n / (n + prior) + PARETO.prior_shape * prior / (n + prior)


def log_mean(log_weights: Tensor, factors: Tensor | None = None) -> Tensor:
    """Log of the mean weight over the draws, times the factors of a controlled estimate if there
    are any.
    """
    log_sum = log_weights.logsumexp(0)
    if factors is not None:
        finite = log_sum.clamp(min=torch.finfo(log_sum.dtype).min)
        relative = (factors * (log_weights - finite).exp()).sum(0)
        log_sum = log_sum + relative.clamp(min=MIN_CONTROLLED).log()
    return log_sum - math.log(len(log_weights))


def log_moments(log_weights: Tensor, factors: Tensor | None = None) -> Tensor:
    """Log of the mean weight, as :func:`log_mean`, and of the effective sample size, shape ``(2,
    individual)``.
    """
    log_ess = 2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)
    return torch.stack([log_mean(log_weights, factors), log_ess])
