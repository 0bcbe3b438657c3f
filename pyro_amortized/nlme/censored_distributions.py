r"""Values outside the limits of quantification, as laws whose values are what was written down.

A value below the limit is recorded as the limit. Simulation, density and network then agree: the
law draws a value and clips it; the probability of the clipped value is the mass beyond the limit.
Beal's methods are

========  =========================================================================
M1        leave values below the limit out: ``law.mask(observed)``
M2        recorded values, known to lie above it: ``Truncated(law, low=lloq)``
M3        the probability of lying below it: ``Censored(law, low=lloq)``
M4        the same for values known to be positive: ``Censored(Truncated(law, low=0), low=lloq)``
========  =========================================================================

References:
    Beal (2001), Ways to fit a PK model with some data below the quantification limit.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

Bound = Tensor | float | None
NUM_NODES = 64


def log_cdf(law: Any, value: Tensor) -> Tensor:
    """Logarithm of the probability of a smaller value, exact in the tails of a normal law."""
    if isinstance(law, Truncated):
        above = _log_minus(log_cdf(law.base, value), log_cdf(law.base, law.low))
        return torch.where(value > law.low, above - law.log_mass, -torch.inf)
    if isinstance(law, torch.distributions.Normal):
        return torch.special.log_ndtr((value - law.loc) / law.scale)
    if isinstance(law, torch.distributions.LogNormal):
        positive = value.clamp(min=torch.finfo(value.dtype).tiny)
        return torch.special.log_ndtr((positive.log() - law.loc) / law.scale)
    if isinstance(law, torch.distributions.StudentT):
        return _student_log_cdf(law, value)
    return law.cdf(value).clamp(min=torch.finfo(value.dtype).tiny).log()


def log_survival(law: Any, value: Tensor) -> Tensor:
    """Logarithm of the probability of a larger value."""
    if isinstance(law, Truncated):
        below = torch.where(value > law.low, log_survival(law.base, value), law.log_mass)
        return below - law.log_mass
    if isinstance(law, torch.distributions.Normal):
        return torch.special.log_ndtr((law.loc - value) / law.scale)
    if isinstance(law, torch.distributions.LogNormal):
        positive = value.clamp(min=torch.finfo(value.dtype).tiny)
        return torch.special.log_ndtr((law.loc - positive.log()) / law.scale)
    if isinstance(law, torch.distributions.StudentT):
        mirrored = dist.StudentT(law.df, -law.loc, law.scale)
        return _student_log_cdf(mirrored, -value)
    return (1 - law.cdf(value)).clamp(min=torch.finfo(value.dtype).tiny).log()


class _Derived(TorchDistribution):  # type: ignore[misc]
    """A law made of another one and of bounds that broadcast to it."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch's own form)
    support = constraints.real

    def __init__(self, base: Any) -> None:
        self.base = base
        super().__init__(base.batch_shape, torch.Size(), validate_args=False)

    def _bound(self, bound: Bound, default: float) -> Tensor:
        like = self.base.mean
        found = torch.as_tensor(default if bound is None else bound, dtype=like.dtype)
        return found.to(like.device).expand(self.base.batch_shape)

    @property
    def mean(self) -> Tensor:
        """Mean of the law before it was censored or truncated: the prediction."""
        return self.base.mean


class Truncated(_Derived):
    r"""A law on what lies above a limit, renormalised.

    Args:
        base: A univariate law, for instance ``Normal``.
        low: The limit, broadcastable to the law.

    Example:
        >>> law = Truncated(dist.Normal(torch.zeros(2), 1.0), low=0.0)
        >>> law.log_prob(torch.tensor([1.0, -1.0]))
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
        """Draws by inversion, where the base has a quantile function; else by rejection."""
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            if isinstance(self.base, torch.distributions.Normal):
                share = torch.rand(shape, dtype=self.low.dtype, device=self.low.device)
                tail = (share.log() + self.log_mass).exp().clamp(min=1e-300)
                drawn = self.base.loc - self.base.scale * torch.special.ndtri(tail)
                return torch.maximum(drawn, self.low)
            drawn = self.base.sample(torch.Size(sample_shape))
            for _ in range(1000):
                outside = drawn < self.low
                if not bool(outside.any()):
                    break
                drawn = torch.where(outside, self.base.sample(torch.Size(sample_shape)), drawn)
            return torch.maximum(drawn, self.low)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "Truncated":
        """The same law over a larger batch."""
        return Truncated(self.base.expand(batch_shape), self.low)


class Censored(_Derived):
    r"""A law whose values are clipped at limits of quantification.

    Args:
        base: A univariate law, for instance ``Normal`` or one of the residual errors.
        low: Lower limit; a value at or below it stands for anything smaller.
        high: Upper limit; a value at or above it stands for anything larger.
        floor: What a value below the lower limit is known to exceed (NONMEM's and Monolix' LIMIT):
            its probability is that of the interval. Broadcastable to the law, as the limits.

    Example:
        >>> law = Censored(dist.Normal(torch.zeros(3), 1.0), low=-1.0)
        >>> law.log_prob(torch.tensor([-1.0, 0.0, 2.0]))
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
        """Where values are clipped, batch shape each."""
        return self.low, self.high

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density between the limits, log probability at them."""
        value, low, high = broadcast_all(value, self.low, self.high)
        below, above = value <= low, value >= high
        safe_low = torch.where(low.isfinite(), low, self.base.mean.detach())
        safe_high = torch.where(high.isfinite(), high, self.base.mean.detach())
        mass = log_cdf(self.base, safe_low)
        if bool(self.floor.isfinite().any()):
            known = self.floor.isfinite()
            floor = torch.where(known, self.floor, safe_low - 1.0)
            between = _log_minus(mass, log_cdf(self.base, floor))
            mass = torch.where(known, between, mass)
        inside = torch.where(below | above, self.base.mean.detach(), value)
        density = self.base.log_prob(inside)
        found = torch.where(below, mass, density)
        return torch.where(above & ~below, log_survival(self.base, safe_high), found)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of the base, clipped."""
        drawn = self.base.sample(torch.Size(sample_shape))
        return torch.minimum(torch.maximum(drawn, self.low), self.high)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "Censored":
        """The same law over a larger batch."""
        return Censored(self.base.expand(batch_shape), self.low, self.high, self.floor)


class Rounded(_Derived):
    r"""A law whose values are known to the nearest multiple of a width only (interval-censored).

    Args:
        base: A univariate law.
        width: Distance of neighbouring values, broadcastable to the law.

    Example:
        >>> Rounded(dist.Normal(torch.zeros(1), 1.0), width=2.0).log_prob(torch.zeros(1)).exp()
        tensor([0.6827])
    """

    def __init__(self, base: Any, width: Bound) -> None:
        super().__init__(base)
        self.width = self._bound(width, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of the interval around a value."""
        low, high = value - self.width / 2, value + self.width / 2
        right = low > self.base.mean
        from_left = _log_minus(log_cdf(self.base, high), log_cdf(self.base, low))
        from_right = _log_minus(log_survival(self.base, low), log_survival(self.base, high))
        return torch.where(right, from_right, from_left)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of the base, rounded."""
        return torch.round(self.base.sample(torch.Size(sample_shape)) / self.width) * self.width

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "Rounded":
        """The same law over a larger batch."""
        return Rounded(self.base.expand(batch_shape), self.width)


def _log_minus(larger: Tensor, smaller: Tensor) -> Tensor:
    """log(exp(larger) - exp(smaller)), finite gradients where both are equal."""
    gap = (smaller - larger).clamp(max=-1e-12)
    return larger + torch.log(-torch.expm1(gap))


def _student_log_cdf(law: Any, value: Tensor) -> Tensor:
    r"""By Gauss-Legendre quadrature of 64 nodes in the angle :math:`\arctan(t / \sqrt\nu)`, in
    which the density is a power of the cosine; torch has no distribution function of Student's law.
    """
    nodes, weights = np.polynomial.legendre.leggauss(NUM_NODES)
    df, standard = torch.broadcast_tensors(law.df, (value - law.loc) / law.scale)
    shape = (-1, *[1] * standard.dim())
    u = torch.as_tensor((nodes + 1) / 2, dtype=standard.dtype).reshape(shape)
    log_w = torch.as_tensor(weights / 2, dtype=standard.dtype).log().reshape(shape)
    upper = standard > 0
    length = torch.atan2(df.sqrt(), standard.abs())  # angle from the nearer end, exact far out
    terms = (df - 1) * torch.sin(length * u).log() + log_w
    constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * math.log(math.pi)
    tail = torch.logsumexp(terms, 0) + length.log() + constant
    return torch.where(upper, torch.log1p(-tail.exp().clamp(max=0.5)), tail)
