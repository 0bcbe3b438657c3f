r"""Log densities of sites, faster where the usual law of observations allows it.

For ``Normal(f, sigma[..., None]).mask(m).to_event(1)``, with one sigma for all times,

.. math:: \log p = -\frac{1}{2 \sigma^2} \sum_j m_j (y_j - f_j)^2
          - \Big(\sum_j m_j\Big) \Big(\log \sigma + \tfrac12 \log 2\pi\Big)

needs three passes over the values, where the law's own ``log_prob`` takes a logarithm of sigma at
every time, and ten passes. So it is with the usual law of individual parameters, whose standard
deviations are expanded over all individuals. Any other law gives its own.
"""

import math
from typing import Any, Literal

import pyro.distributions as dist
import torch
from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def log_prob_of(law: Any, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    r"""Log density of a law at a value, in its batch shape.

    Example:
        >>> law = dist.Normal(torch.zeros(2, 3), torch.ones(2, 1)).to_event(1)
        >>> torch.equal(log_prob_of(law, torch.zeros(2, 3)), law.log_prob(torch.zeros(2, 3)))
        True
    """
    if args or kwargs or law._validate_args:
        return law.log_prob(value, *args, **kwargs)
    normal, mask = _normal(law)
    if normal is None:
        return law.log_prob(value)
    apart = value - normal.loc
    if mask is True:
        scale = _compact(normal.scale)
        apart = apart / scale
        size = apart.shape[-1]
        log_scale = scale.log().expand(*scale.shape[:-1], size).sum(-1)
        return -0.5 * torch.linalg.vecdot(apart, apart) - log_scale - size * HALF_LOG_TWO_PI
    if normal.scale.stride(-1) != 0:
        return law.log_prob(value)
    scale = normal.scale[..., 0]
    apart = torch.where(mask, apart, apart.new_zeros(()))
    square = torch.linalg.vecdot(apart, apart)
    return -0.5 * square / scale**2 - mask.sum(-1) * (scale.log() + HALF_LOG_TWO_PI)


def _normal(law: Any) -> tuple[dist.Normal | None, Tensor | Literal[True]]:
    """The normal law behind an event of one dimension, and its mask; or None."""
    if not (isinstance(law, dist.Independent) and law.reinterpreted_batch_ndims == 1):
        return None, True
    inner, mask = law.base_dist, True
    if isinstance(inner, dist.MaskedDistribution):
        inner, mask = inner.base_dist, inner._mask
    if type(inner) is not dist.Normal or not (mask is True or isinstance(mask, Tensor)):
        return None, True
    return inner, mask


def _compact(x: Tensor) -> Tensor:
    """One entry in the place of all that were expanded from it."""
    for dim, (size, stride) in enumerate(zip(x.shape, x.stride(), strict=True)):
        if stride == 0 and size > 1:
            x = x.narrow(dim, 0, 1)
    return x
