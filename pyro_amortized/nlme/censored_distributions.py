r"""Distributions of values beyond limits of quantification, of truncated and of rounded values.

A value below the limit is recorded as the limit. :class:`Censored` therefore draws a value and
clips it, and its log density at the limit is the log probability beyond the limit:

.. math:: \log p(y) = \begin{cases} \log F(l) & y \le l \\ \log f(y) & l < y < h \\
    \log (1 - F(h)) & y \ge h \end{cases}

with density f and distribution function F of the base distribution. So simulation, density and the
data that the network reads agree. Beal's methods are

========  ==========================================================================================
M1        leave values below the limit out: ``distribution.mask(observed)``
M2        recorded values, known to lie above it: ``Truncated(distribution, low=lloq)``
M3        the probability of lying below it: ``Censored(distribution, low=lloq)``
M4        M3 for values known to be positive: ``Censored(Truncated(distribution, low=0), low=lloq)``
========  ==========================================================================================

References:
    Beal (2001), Ways to fit a PK model with some data below the quantification limit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

Bound = Tensor | float | None


@dataclass(frozen=True)
class ProbabilitySettings:
    r"""How probabilities are computed, and when drawing stops.

    Args:
        num_nodes: Nodes of the quadrature for Student's distribution function. With 64 its
            logarithm has a relative error below 1e-5 for 1.5 to 200 degrees of freedom.
        max_rejections: Draws of a truncated distribution before a value below the limit is set to
            the limit. After 1000 draws that happens only if almost no probability is above it.
        smallest_tail: Smallest tail probability whose quantile is computed, near the smallest
            number of double precision.
        smallest_gap: Smallest difference of two log probabilities, so that the logarithm of the
            difference of the probabilities and its gradient are finite.
        limit_tolerance: Relative distance from a limit at which a value is one at the limit. A
            value of 0.2 that was once in single precision lies 3e-9 above 0.2.
    """

    num_nodes: int = 64
    max_rejections: int = 1000
    smallest_tail: float = 1e-300
    smallest_gap: float = 1e-12
    limit_tolerance: float = 1e-6


DEFAULTS = ProbabilitySettings()


def log_cdf(distribution: Any, value: Tensor) -> Tensor:
    """Log probability of a smaller value, accurate in the tails of a normal distribution.

    Args:
        distribution: A univariate distribution with a method ``cdf``, or a Student's t.
        value: Broadcastable to the batch shape.
    """
    if isinstance(distribution, Truncated):
        base = distribution.base
        above = _log_difference(log_cdf(base, value), log_cdf(base, distribution.low))
        return torch.where(value > distribution.low, above - distribution.log_mass, -torch.inf)
    if isinstance(distribution, torch.distributions.Normal):
        return torch.special.log_ndtr((value - distribution.loc) / distribution.scale)
    if isinstance(distribution, torch.distributions.LogNormal):
        positive = value.clamp(min=torch.finfo(value.dtype).tiny)
        return torch.special.log_ndtr((positive.log() - distribution.loc) / distribution.scale)
    if isinstance(distribution, torch.distributions.StudentT):
        return _student_log_cdf(distribution, value)
    return distribution.cdf(value).clamp(min=torch.finfo(value.dtype).tiny).log()


def log_survival(distribution: Any, value: Tensor) -> Tensor:
    """Log probability of a larger value; arguments as for :func:`log_cdf`."""
    if isinstance(distribution, Truncated):
        above = log_survival(distribution.base, value)
        log_mass = distribution.log_mass
        return torch.where(value > distribution.low, above, log_mass) - log_mass
    if isinstance(distribution, torch.distributions.Normal):
        return torch.special.log_ndtr((distribution.loc - value) / distribution.scale)
    if isinstance(distribution, torch.distributions.LogNormal):
        positive = value.clamp(min=torch.finfo(value.dtype).tiny)
        return torch.special.log_ndtr((distribution.loc - positive.log()) / distribution.scale)
    if isinstance(distribution, torch.distributions.StudentT):
        mirrored = dist.StudentT(distribution.df, -distribution.loc, distribution.scale)
        return _student_log_cdf(mirrored, -value)
    return (1 - distribution.cdf(value)).clamp(min=torch.finfo(value.dtype).tiny).log()


class _Derived(TorchDistribution):  # type: ignore[misc]
    """A distribution made of another one and of bounds that broadcast to it."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch's own form)
    support = constraints.real

    def __init__(self, base: Any) -> None:
        self.base = base
        super().__init__(base.batch_shape, torch.Size(), validate_args=False)

    def _bound(self, bound: Bound, default: float) -> Tensor:
        like = self.base.mean
        value = torch.as_tensor(default if bound is None else bound, dtype=like.dtype)
        return value.to(like.device).expand(self.base.batch_shape)

    @property
    def mean(self) -> Tensor:
        """Mean of the base distribution, which is the prediction; not the mean of the values."""
        return self.base.mean


class Truncated(_Derived):
    r"""The part of a distribution above a limit, normalized.

    Args:
        base: A univariate distribution, for instance ``Normal``.
        low: The limit, broadcastable to the batch shape of the base, unit of the values.

    Example:
        >>> distribution = Truncated(dist.Normal(torch.zeros(2), 1.0), low=0.0)
        >>> distribution.log_prob(torch.tensor([1.0, -1.0]))
        tensor([-0.7258,    -inf])
    """

    def __init__(self, base: Any, low: Bound) -> None:
        super().__init__(base)
        self.low = self._bound(low, -torch.inf)
        self.log_mass = log_survival(base, self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density; minus infinity below the limit."""
        safe = torch.where(value >= self.low, value, self.low + 1.0)
        inside = self.base.log_prob(safe) - self.log_mass
        return torch.where(value >= self.low, inside, -torch.inf)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws: by inversion for a normal base, otherwise by rejection."""
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            if isinstance(self.base, torch.distributions.Normal):
                uniform = torch.rand(shape, dtype=self.low.dtype, device=self.low.device)
                tail = (uniform.log() + self.log_mass).exp().clamp(min=DEFAULTS.smallest_tail)
                draws = self.base.loc - self.base.scale * torch.special.ndtri(tail)
                return torch.maximum(draws, self.low)
            draws = self.base.sample(torch.Size(sample_shape))
            for _ in range(DEFAULTS.max_rejections):
                outside = draws < self.low
                if not bool(outside.any()):
                    break
                draws = torch.where(outside, self.base.sample(torch.Size(sample_shape)), draws)
            return torch.maximum(draws, self.low)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "Truncated":
        """The same distribution over a larger batch."""
        return Truncated(self.base.expand(batch_shape), self.low)


class Censored(_Derived):
    r"""A distribution whose values are clipped at limits of quantification.

    Args:
        base: A univariate distribution, for instance ``Normal`` or a residual error model.
        low: Lower limit, unit of the values. A value at or below it stands for any smaller value.
            Default: no lower limit.
        high: Upper limit. A value at or above it stands for any larger value. Default: no upper
            limit.
        floor: A bound that a value below the lower limit is known to exceed (LIMIT in NONMEM and
            Monolix). The density at the lower limit is then the probability of the interval.
            Default: no bound. All three broadcast to the batch shape of the base.

    Example:
        >>> distribution = Censored(dist.Normal(torch.zeros(3), 1.0), low=-1.0)
        >>> distribution.log_prob(torch.tensor([-1.0, 0.0, 2.0]))
        tensor([-1.8410, -0.9189, -2.9189])
    """

    def __init__(
        self, base: Any, low: Bound = None, high: Bound = None, floor: Bound = None
    ) -> None:
        super().__init__(base)
        self.low, self.high = self._bound(low, -torch.inf), self._bound(high, torch.inf)
        self.floor = self._bound(floor, -torch.inf)

    @property
    def limits(self) -> tuple[Tensor, Tensor]:
        """Values from which on a value counts as one at the lower and at the upper limit, batch
        shape each: the limits, with a tolerance for limits and values of different precision.
        """
        margin = DEFAULTS.limit_tolerance
        low, high = (x.abs().nan_to_num(0.0, 0.0) * margin for x in (self.low, self.high))
        return self.low + low, self.high - high

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density between the limits, log probability at them."""
        value, low, high = broadcast_all(value, self.low, self.high)
        reached_low, reached_high = self.limits
        below, above = value <= reached_low, value >= reached_high
        # Values that another branch covers are replaced, so that all gradients are finite.
        safe_low = torch.where(low.isfinite(), low, self.base.mean.detach())
        safe_high = torch.where(high.isfinite(), high, self.base.mean.detach())
        mass = log_cdf(self.base, safe_low)
        if bool(self.floor.isfinite().any()):
            known = self.floor.isfinite()
            floor = torch.where(known, self.floor, safe_low - 1.0)
            between = _log_difference(mass, log_cdf(self.base, floor))
            mass = torch.where(known, between, mass)
        inside = torch.where(below | above, self.base.mean.detach(), value)
        density = self.base.log_prob(inside)
        low_or_inside = torch.where(below, mass, density)
        return torch.where(above & ~below, log_survival(self.base, safe_high), low_or_inside)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of the base, clipped."""
        draws = self.base.sample(torch.Size(sample_shape))
        return torch.minimum(torch.maximum(draws, self.low), self.high)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "Censored":
        """The same distribution over a larger batch."""
        return Censored(self.base.expand(batch_shape), self.low, self.high, self.floor)


class Rounded(_Derived):
    r"""A distribution whose values are rounded to a multiple of a width (interval-censored).

    Args:
        base: A univariate distribution.
        width: Distance of neighbouring values, broadcastable to the batch shape of the base, unit
            of the values.

    Example:
        >>> Rounded(dist.Normal(torch.zeros(1), 1.0), width=2.0).log_prob(torch.zeros(1)).exp()
        tensor([0.6827])
    """

    def __init__(self, base: Any, width: Bound) -> None:
        super().__init__(base)
        self.width = self._bound(width, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of the interval of this width around a value."""
        low, high = value - self.width / 2, value + self.width / 2
        # Differences of the nearer tail keep their accuracy far from the mean.
        is_right_of_mean = low > self.base.mean
        from_lower = _log_difference(log_cdf(self.base, high), log_cdf(self.base, low))
        from_upper = _log_difference(log_survival(self.base, low), log_survival(self.base, high))
        return torch.where(is_right_of_mean, from_upper, from_lower)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of the base, rounded."""
        return torch.round(self.base.sample(torch.Size(sample_shape)) / self.width) * self.width

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "Rounded":
        """The same distribution over a larger batch."""
        return Rounded(self.base.expand(batch_shape), self.width)


def _log_difference(larger: Tensor, smaller: Tensor) -> Tensor:
    """log(exp(larger) - exp(smaller)), with finite gradients where both are equal."""
    gap = (smaller - larger).clamp(max=-DEFAULTS.smallest_gap)
    return larger + torch.log(-torch.expm1(gap))


def _student_log_cdf(distribution: Any, value: Tensor) -> Tensor:
    r"""Log distribution function of Student's t, which torch does not have.

    Gauss-Legendre quadrature in the angle :math:`\arctan(t / \sqrt\nu)`, in which the density is a
    power of the cosine.
    """
    nodes, weights = np.polynomial.legendre.leggauss(DEFAULTS.num_nodes)
    standard = (value - distribution.loc) / distribution.scale
    df, standard = torch.broadcast_tensors(distribution.df, standard)
    shape = (-1, *[1] * standard.dim())
    u = torch.as_tensor((nodes + 1) / 2, dtype=standard.dtype).reshape(shape)
    log_w = torch.as_tensor(weights / 2, dtype=standard.dtype).log().reshape(shape)
    length = torch.atan2(df.sqrt(), standard.abs())  # angle from the nearer end, accurate far out
    terms = (df - 1) * torch.sin(length * u).log() + log_w
    constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * math.log(math.pi)
    tail = torch.logsumexp(terms, 0) + length.log() + constant
    return torch.where(standard > 0, torch.log1p(-tail.exp().clamp(max=0.5)), tail)
