r"""Distributions that are normal on some scale: their parts, and how they are put together again.

A site may be normal, lognormal, logit-normal or any transformation of a normal distribution, with
or without correlations. :func:`transformed_normal` finds mean and scale on the normal scale, and
:meth:`TransformedNormal.distribution` makes a distribution of the same kind with another mean or
scale.
"""

from dataclasses import dataclass, replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, TransformedDistribution


@dataclass(frozen=True, eq=False)
class TransformedNormal:
    r"""A distribution that is normal on some scale.

    Args:
        loc: Mean on the normal scale, shape ``(*batch, *event)``.
        scale: Standard deviations, broadcastable to ``loc``.
        factor: Cholesky factor of the covariance, shape ``(*batch, entry, entry)``, or None for
            independent entries.
        transforms: From the normal scale to the values.
        event_dim: Number of event dimensions, 0 or 1.
    """

    loc: Tensor
    scale: Tensor
    factor: Tensor | None
    transforms: tuple[Any, ...]
    event_dim: int

    def moved(self, shift: Tensor) -> "TransformedNormal":
        """The same distribution with its mean moved on the normal scale."""
        return replace(self, loc=self.loc + shift)

    def distribution(self) -> Any:
        """As a Pyro distribution."""
        base: Any
        if self.factor is not None:
            base = dist.MultivariateNormal(self.loc, scale_tril=self.factor)
        else:
            base = dist.Normal(self.loc, self.scale).to_event(self.event_dim)
        return (
            dist.TransformedDistribution(base, list(self.transforms)) if self.transforms else base
        )

    def on_normal_scale(self, value: Tensor) -> Tensor:
        """Values on the normal scale."""
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        return value


def transformed_normal(fn: Any) -> TransformedNormal | None:
    """Mean and scale of a distribution that is normal on some scale, or None for any other."""
    event_dim = fn.event_dim
    transforms: list[Any] = []
    if event_dim > 1:
        return None
    while True:
        if isinstance(fn, Independent):
            fn = fn.base_dist
        elif isinstance(fn, TransformedDistribution):
            transforms = [*fn.transforms, *transforms]
            fn = fn.base_dist
        else:
            break
    if isinstance(fn, Normal):
        return TransformedNormal(fn.loc, fn.scale, None, tuple(transforms), event_dim)
    if isinstance(fn, MultivariateNormal):
        factor = fn.scale_tril
        scale = factor.square().sum(-1).sqrt()
        return TransformedNormal(fn.loc, scale, factor, tuple(transforms), event_dim)
    return None


def with_scale(fn: Any, change: Any) -> Any:
    r"""A normal distribution of observations with another standard deviation, or None if it is not
    normal.

    Args:
        fn: The distribution: normal, with any masks and event dimensions around it.
        change: A function of mean and standard deviation that gives the new standard deviation.
    """
    if isinstance(fn, Independent):
        inner = with_scale(fn.base_dist, change)
        return None if inner is None else inner.to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.MaskedDistribution):
        inner = with_scale(fn.base_dist, change)
        return None if inner is None else inner.mask(fn._mask)
    if type(fn) is Normal or type(fn) is dist.Normal:
        return dist.Normal(fn.loc, change(fn.loc, fn.scale))
    return None


def normal_observation(fn: Any) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of a normal distribution of observations, or None."""
    found: list[tuple[Tensor, Tensor]] = []

    def keep(loc: Tensor, scale: Tensor) -> Tensor:
        found.append((loc, scale))
        return scale

    return found[0] if with_scale(fn, keep) is not None else None


def embedded(values: Tensor, entry: int, size: int) -> Tensor:
    """Values in one entry of an event of a size, zeros elsewhere, shape ``(*, size)``."""
    unit = torch.zeros(size, dtype=values.dtype, device=values.device)
    unit[entry] = 1.0
    return values.unsqueeze(-1) * unit
