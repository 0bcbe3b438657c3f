r"""Log densities of sites, faster where the usual law of observations allows it.

For ``Normal(f, sigma[..., None]).mask(m).to_event(1)``, with one sigma for all times,

.. math:: \log p = -\frac{1}{2 \sigma^2} \sum_j m_j (y_j - f_j)^2
          - \Big(\sum_j m_j\Big) \Big(\log \sigma + \tfrac12 \log 2\pi\Big)

needs three passes over the values, where the law's own ``log_prob`` takes a logarithm of sigma at
every time, and ten passes. Any other law gives its own.
"""

import math
from typing import Any

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
    normal, mask = _constant_normal(law)
    if normal is None or args or kwargs or law._validate_args:
        return law.log_prob(value, *args, **kwargs)
    scale = normal.scale[..., 0]
    apart = value - normal.loc
    num: Tensor | int = apart.shape[-1]
    if isinstance(mask, Tensor):
        apart = torch.where(mask, apart, apart.new_zeros(()))
        num = mask.sum(-1)
    square = torch.linalg.vecdot(apart, apart)
    return -0.5 * square / scale**2 - num * (scale.log() + HALF_LOG_TWO_PI)


def _constant_normal(law: Any) -> tuple[dist.Normal | None, Tensor | bool]:
    """The normal law behind an event of times with one scale for all, and its mask; or None."""
    if not (isinstance(law, dist.Independent) and law.reinterpreted_batch_ndims == 1):
        return None, True
    inner, mask = law.base_dist, True
    if isinstance(inner, dist.MaskedDistribution):
        inner, mask = inner.base_dist, inner._mask
    if mask is False or type(inner) is not dist.Normal or inner.scale.stride(-1) != 0:
        return None, True
    return inner, mask
