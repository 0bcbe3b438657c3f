r"""The distribution that a sharpened posterior gives: flows around the modes of an individual.

With the modes :math:`m_j`, their scales :math:`L_j` and shares :math:`\pi_j`, the second flow
:math:`q_2` and the first posterior :math:`q_1`,

.. math:: q(u \mid y, c) = (1 - \varepsilon) \sum_j \pi_j\, q_2(z_j \mid \ldots) / |L_j|
          + \varepsilon\, q_1(u \mid y, c) , \qquad z_j = L_j^{-1} (u - m_j) .

In :math:`q_2` itself a part of the draws comes from a Student distribution, for the tails.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from ..networks.conditional_flow import FlowDistribution
from ..numerics.row_groups import RowGroups


@dataclass(frozen=True)
class MixtureSettings:
    r"""Parts of the mixture.

    Args:
        share_of_first: Weight :math:`\varepsilon` of the first posterior. One hundredth costs 0.01
            nats where the steps always find all modes (decision 027).
        share_of_tails: Part of the draws around a mode that come from a Student distribution with
            the scale there. Without it single draws in the tails, where the flow has learned
            little, had a quarter of the weight of an individual (decision 090).
        tail_freedom: Its degrees of freedom.
    """

    share_of_first: float = 0.01
    share_of_tails: float = 0.02
    tail_freedom: float = 5.0


MIXTURE = MixtureSettings()


@dataclass(frozen=True, eq=False)
class Modes:
    r"""The second flow around the modes of every individual; most have one.

    Args:
        groups: Which modes belong to each individual.
        second: The distribution of z at every mode, batch shape ``(mode,)``.
        location: Modes m, shape ``(mode, latent)``.
        scale_tril: Scales L, shape ``(mode, latent, latent)``.
        log_share: Logs of the shares, which sum to one over the modes of an individual, shape
            ``(mode,)``.
    """

    groups: RowGroups
    second: FlowDistribution
    location: Tensor
    scale_tril: Tensor
    log_share: Tensor

    def take(self, rows: Tensor) -> "Modes":
        """Those of some individuals, which may be named repeatedly."""
        groups, modes = self.groups.take(rows)
        return Modes(groups, *self._parts(modes))

    def _parts(self, modes: Tensor) -> tuple[FlowDistribution, Tensor, Tensor, Tensor]:
        second = self.second.take(modes)
        return second, self.location[modes], self.scale_tril[modes], self.log_share[modes]

    def some(self, modes: Tensor) -> "Modes":
        """Some of the modes, each as that of an individual of its own."""
        return Modes(RowGroups(torch.ones_like(modes)), *self._parts(modes))

    @property
    def log_scale(self) -> Tensor:
        """Log determinant of L less the log share, shape ``(mode,)``."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - self.log_share

    def standardized(self, values: Tensor) -> Tensor:
        """Values ``(draw, mode, latent)`` as z, same shape."""
        centered = (values - self.location).unsqueeze(-1)
        tril = self.scale_tril.expand(*centered.shape[:-2], -1, -1)
        return torch.linalg.solve_triangular(tril, centered, upper=False).squeeze(-1)

    def log_prob(self, values: Tensor) -> Tensor:
        """Log density ``(draw, individual)`` of values ``(draw, individual, latent)``."""
        return self.groups.logsumexp(self.log_parts(values[:, self.groups.rows]))

    def log_parts(self, values: Tensor) -> Tensor:
        """Log of share times density of values ``(draw, mode, latent)``, ``(draw, mode)``."""
        z = self.standardized(values).to(self.second.flow_dtype)
        return log_with_tails(self.second.log_prob(z), z).to(values.dtype) - self.log_scale

    def draws(self, num: int) -> tuple[Tensor, Tensor]:
        """Draws, shape ``(draw, individual, latent)``, and their log density. The flow gives the
        density of its own draws; it is evaluated where an individual has several modes.
        """
        z, log_z = self._draws_of_flow(num)
        scaled = (self.scale_tril @ z.to(self.location.dtype).unsqueeze(-1)).squeeze(-1)
        draws, log_parts = self.location + scaled, log_z.to(scaled.dtype) - self.log_scale
        if self.groups.is_one_each:
            return draws, log_parts
        logits = self.groups.padded(self.log_share, -torch.inf)
        place = torch.distributions.Categorical(logits=logits).sample((num,))
        chosen = (self.groups.first + place).unsqueeze(-1).expand(-1, -1, draws.shape[-1])
        draws = draws.gather(1, chosen)
        several = (self.groups.counts > 1)[self.groups.rows].nonzero()[:, 0]
        values = draws[:, self.groups.rows[several]]
        log_parts = log_parts.index_copy(1, several, self.some(several).log_parts(values))
        return draws, self.groups.logsumexp(log_parts)

    def _draws_of_flow(self, num: int) -> tuple[Tensor, Tensor]:
        """Draws of z at every mode, a part of them from the tails, and their log density."""
        z, log_flow = self.second.sample_with_log_prob(Size([num]))
        is_tail = torch.rand(z.shape[:-1]) < MIXTURE.share_of_tails
        index = is_tail.nonzero()[:, 1]
        normal = torch.randn(len(index), z.shape[-1], dtype=z.dtype)
        freedom = torch.full((len(index), 1), MIXTURE.tail_freedom).to(z)
        from_tails = normal * (freedom / (2 * torch._standard_gamma(freedom / 2))).sqrt()
        at_tails = self.second.take(index).log_prob(from_tails)
        z = z.masked_scatter(is_tail.unsqueeze(-1), from_tails)
        return z, log_with_tails(log_flow.masked_scatter(is_tail, at_tails), z)


class SharpenedDistribution(TorchDistribution):  # type: ignore[misc]
    r"""A mixture of the second flow around the modes and a hundredth of the first posterior.

    Args:
        first: The first posterior, batch shape ``(*batch,)``.
        modes: The second flow around the modes of each element of the batch.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's own declaration)
    has_rsample = True

    def __init__(self, first: FlowDistribution, modes: Modes) -> None:
        self.first, self.modes = first, modes
        super().__init__(first.batch_shape, modes.location.shape[-1:], validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """Every dimension is unconstrained."""
        return constraints.real_vector

    def take(self, rows: Tensor) -> "SharpenedDistribution":
        """The distribution of some rows of the first batch dimension."""
        return SharpenedDistribution(self.first.take(rows), self._modes_at(self._elements[rows]))

    def reshape(self, batch_shape: Size) -> "SharpenedDistribution":
        """The same with another batch shape of as many elements."""
        return SharpenedDistribution(self.first.reshape(batch_shape), self.modes)

    def expand(self, batch_shape: Size, _instance: None = None) -> "SharpenedDistribution":
        """The same distribution with a larger batch."""
        modes = self._modes_at(self._elements.expand(batch_shape))
        return SharpenedDistribution(self.first.expand(batch_shape), modes)

    @functools.cached_property
    def _flat_first(self) -> FlowDistribution:
        """The first posterior with one batch dimension. It is kept, and with it what its network
        computes once for many draws.
        """
        return self.first.reshape(Size([self.batch_shape.numel()]))

    @property
    def _elements(self) -> Tensor:
        """Numbers of the elements, of the shape of the batch."""
        return torch.arange(self.batch_shape.numel()).reshape(self.batch_shape)

    def _modes_at(self, elements: Tensor) -> Modes:
        return self.modes.take(elements.reshape(-1))

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draws, shape ``(*sample_shape, *batch, latent)``."""
        shape = Size([*sample_shape, *self.batch_shape])
        return self._draws(math.prod(sample_shape))[0].reshape(shape + self.event_shape)

    def sample_with_log_prob(self, sample_shape: Size) -> tuple[Tensor, Tensor]:
        """Draws and their log density."""
        draws, log_second = self._draws(math.prod(sample_shape))
        first = self._flat_first
        log_first = first.log_prob(draws.to(first.flow_dtype)).to(draws.dtype)
        shape = Size([*sample_shape, *self.batch_shape])
        log_prob = log_mixture(log_second, log_first).reshape(shape)
        return draws.reshape(shape + self.event_shape), log_prob

    def _draws(self, num: int) -> tuple[Tensor, Tensor]:
        """Draws, shape ``(draw, element, latent)``, and their log density around the modes. The
        first posterior draws only its own share.
        """
        draws, log_second = self.modes.draws(num)
        is_first = torch.rand(draws.shape[:-1]) < MIXTURE.share_of_first
        index = is_first.nonzero()[:, 1]
        from_first = self._flat_first.take(index).rsample().to(draws.dtype)
        at_first = self.modes.take(index).log_prob(from_first.unsqueeze(0))[0]
        draws = draws.masked_scatter(is_first.unsqueeze(-1), from_first)
        return draws, log_second.masked_scatter(is_first, at_first)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, shape ``(*sample_shape, *batch)``."""
        log_first = self.first.log_prob(value.to(self.first.flow_dtype))
        return log_mixture(self.log_prob_of_second(value), log_first.to(value.dtype))

    def log_prob_of_second(self, value: Tensor) -> Tensor:
        """Log density of the second part of the mixture, shape ``(*sample_shape, *batch)``."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        rows = value.expand(shape).reshape(-1, self.batch_shape.numel(), shape[-1])
        return self.modes.log_prob(rows).reshape(shape[:-1])


def log_with_tails(log_flow: Tensor, z: Tensor) -> Tensor:
    """Log density of z, from that under the flow: a part of it is a Student distribution."""
    share = MIXTURE.share_of_tails
    return torch.logaddexp(log_flow + math.log1p(-share), log_tails(z) + math.log(share))


def log_tails(z: Tensor) -> Tensor:
    """Log density of the Student distribution, shape ``(*batch, latent)`` to ``(*batch,)``."""
    freedom, d = MIXTURE.tail_freedom, z.shape[-1]
    half = (freedom + d) / 2
    constant = math.lgamma(half) - math.lgamma(freedom / 2) - d / 2 * math.log(freedom * math.pi)
    return constant - half * (z.square().sum(-1) / freedom).log1p()


def log_mixture(log_second: Tensor, log_first: Tensor) -> Tensor:
    """Log density of the mixture from those of its parts."""
    share = MIXTURE.share_of_first
    return torch.logaddexp(log_second + math.log1p(-share), log_first + math.log(share))
