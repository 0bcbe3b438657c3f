r"""What kind of outcome an observation is, and its mean and standard deviation.

Figures and residuals of concentrations say nothing about an event or a category. The distribution
of an observation site tells which kind it is.
"""

from typing import Any, Literal

import torch
from pyro.distributions.zero_inflated import ZeroInflatedDistribution
from torch import Tensor

OutcomeKind = Literal["continuous", "count", "category", "event"]


def is_wrapper(distribution: Any) -> bool:
    """Whether a distribution is another one with a mask or a shape: not one that changes its
    values (transformed) or its probabilities (zero-inflated).
    """
    changes = hasattr(distribution, "transforms") or isinstance(
        distribution, ZeroInflatedDistribution
    )
    return hasattr(distribution, "base_dist") and not changes


def innermost(distribution: Any) -> Any:
    """The distribution inside masks and events."""
    while is_wrapper(distribution):
        distribution = distribution.base_dist
    return distribution


def append_dims(mask: Tensor | bool, num_dims: int) -> Tensor | bool:
    """A mask with further dimensions of size one at its end."""
    return mask.reshape(*mask.shape, *[1] * num_dims) if isinstance(mask, Tensor) else mask


def values_mask(distribution: Any) -> Tensor | bool:
    """The masks in the wrappers of a distribution, broadcastable to its values."""
    mask: Tensor | bool = True
    while hasattr(distribution, "base_dist"):
        mask = mask & append_dims(getattr(distribution, "_mask", True), distribution.event_dim)
        distribution = distribution.base_dist
    return mask


def outcome_kind(distribution: Any) -> OutcomeKind:
    """The kind of the values of a distribution: events and categories by class, counts by their
    support.

    Example:
        >>> import pyro.distributions as dist
        >>> outcome_kind(dist.Poisson(torch.ones(2, 3)).to_event(1))
        'count'
    """
    inner = innermost(distribution)
    if getattr(inner, "is_event", False):
        return "event"
    categorical = (torch.distributions.Bernoulli, torch.distributions.Categorical)
    if getattr(inner, "is_category", False) or isinstance(inner, categorical):
        return "category"
    return "count" if getattr(inner.support, "is_discrete", False) else "continuous"


def outcome_moments(distribution: Any) -> tuple[Tensor, Tensor] | None:
    """Mean and variance of the values of a distribution, in its own shape; those of the number of
    the category for categories. None where it has none.
    """
    inner = innermost(distribution)
    if isinstance(inner, torch.distributions.Categorical):
        numbers = torch.arange(inner.probs.shape[-1], dtype=inner.probs.dtype)
        mean = (inner.probs * numbers).sum(-1)
        return mean, (inner.probs * numbers.square()).sum(-1) - mean.square()
    if getattr(inner, "is_event", False):
        return None
    # Without censoring, truncation, rounding or layout.
    plain = getattr(inner, "base", inner)
    try:
        return plain.mean, plain.variance
    except (NotImplementedError, AttributeError):
        return None


def site_mean(distribution: Any) -> Tensor | None:
    """Mean of the values of an observation site, in batch and event shape; None for events and
    where there is none.
    """
    if outcome_kind(distribution) in ("continuous", "count"):
        try:
            mean: Tensor = distribution.mean
        except (NotImplementedError, AttributeError):
            return None
        return mean
    moments = outcome_moments(distribution)
    if moments is None:
        return None
    return moments[0].expand(distribution.batch_shape + distribution.event_shape)
