r"""Log densities of sites, with a fast formula for the usual distribution of observations.

For ``Normal(f, sigma[..., None]).mask(m).to_event(1)``, with one sigma for all times,

.. math:: \log p = -\frac{1}{2 \sigma^2} \sum_j m_j (y_j - f_j)^2
          - \Big(\sum_j m_j\Big) \Big(\log \sigma + \tfrac12 \log 2\pi\Big)

needs three passes over the values. The distribution's own ``log_prob`` needs ten, and computes the
logarithm of sigma at every time. The same holds for the usual distribution of the individual
parameters, whose standard deviations are expanded over all individuals; with one sigma for every
value half of the passes remain. For every other distribution its own ``log_prob`` is used.
"""

import math
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor

from ..numerics.small_sums import sum_last
from .outcome_kinds import innermost, values_mask

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
ROUNDING = 1e-9  # of a probability that is a difference of two: more below zero is no rounding


def log_prob_of(distribution: Any, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    r"""Log density of a distribution at a value, in its batch shape.

    Example:
        >>> distribution = dist.Normal(torch.zeros(2, 3), torch.ones(2, 1)).to_event(1)
        >>> value = torch.zeros(2, 3)
        >>> torch.equal(log_prob_of(distribution, value), distribution.log_prob(value))
        True
    """
    if args or kwargs or distribution._validate_args:
        return distribution.log_prob(value, *args, **kwargs)
    normal, mask = _normal(distribution)
    if normal is None:
        return _possible_log_prob(distribution, value)
    residual = value - normal.loc
    if mask is True:
        scale = _compact(normal.scale)
        residual = residual / scale
        size = residual.shape[-1]
        log_scale = scale.log().expand(*scale.shape[:-1], size).sum(-1)
        return -0.5 * sum_last(residual.square()) - log_scale - size * HALF_LOG_TWO_PI
    residual = torch.where(mask, residual, residual.new_zeros(()))
    if normal.scale.stride(-1) != 0:  # one sigma for every value
        terms = (residual / normal.scale).square() / 2 + normal.scale.log() + HALF_LOG_TWO_PI
        return -sum_last(torch.where(mask, terms, terms.new_zeros(())))
    scale = normal.scale[..., 0]
    square = torch.linalg.vecdot(residual, residual)
    return -0.5 * square / scale**2 - mask.sum(-1) * (scale.log() + HALF_LOG_TWO_PI)


def _possible_log_prob(distribution: Any, value: Tensor) -> Tensor:
    """The distribution's own log density, with two exceptions for categories.

    It is minus infinity at values that are no category, which torch cuts off to whole numbers, or
    uses as an index beyond the probabilities. It is NaN where a probability is negative, as for cut
    points that decrease: torch takes a small positive one in its place, and the others then add up
    to more than one.
    """
    inner = innermost(distribution)
    if not isinstance(inner, torch.distributions.Categorical):
        result: Tensor = distribution.log_prob(value)
        return result
    faults = []
    outside = ~inner.support.check(value)
    if bool(outside.any()):
        value = torch.where(outside, torch.zeros_like(value), value)
        faults.append((outside, -torch.inf))
    if "probs" in vars(inner):
        negative = (inner.probs < -ROUNDING).any(-1)
        faults += [(negative, torch.nan)] if bool(negative.any()) else []
    log_prob = distribution.log_prob(value)
    shape = distribution.batch_shape + distribution.event_shape
    for cells, instead in faults:
        hit = (cells & values_mask(distribution)).expand(shape)
        hit = hit.flatten(-distribution.event_dim).any(-1) if distribution.event_dim else hit
        log_prob = torch.where(hit, instead, log_prob)
    return log_prob


def _normal(distribution: Any) -> tuple[dist.Normal | None, Tensor | Literal[True]]:
    """The normal distribution inside an event of one dimension, and its mask; or None."""
    if not (
        isinstance(distribution, dist.Independent) and distribution.reinterpreted_batch_ndims == 1
    ):
        return None, True
    base, mask = distribution.base_dist, True
    if isinstance(base, dist.MaskedDistribution):
        base, mask = base.base_dist, base._mask
    if type(base) is not dist.Normal or not (mask is True or isinstance(mask, Tensor)):
        return None, True
    return base, mask


def _compact(x: Tensor) -> Tensor:
    """The tensor with one entry in every dimension that was expanded."""
    for dim, (size, stride) in enumerate(zip(x.shape, x.stride(), strict=True)):
        if stride == 0 and size > 1:
            x = x.narrow(dim, 0, 1)
    return x
