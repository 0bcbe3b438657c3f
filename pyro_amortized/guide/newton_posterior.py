r"""The amortized posterior, sharpened by the model's own density.

A network reads the location of a narrow posterior only roughly. The model knows better: from the
best of a few points of the network's answer, Newton steps on :math:`\log p(y \mid u, c) + \log
\tilde p(u)` lead to the mode m and the curvature :math:`(L L^\top)^{-1}` there. A second flow then
learns what is left, the shape of

.. math:: z = L^{-1} (u - m),

from the log densities in a few points around the mode and from the network's summary. The answer is

.. math:: q(u \mid y, c) = (1 - \varepsilon)\, q_2(z \mid \ldots) / |L| + \varepsilon\, q_1(u \mid
    y, c),

with the first answer :math:`q_1` where the steps went astray.
"""

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from ..cohort import Cohort
from ..encode import Encoder
from ..model import ModelStructure
from ..networks.conditional_flow import ConditionalFlow, FlowDistribution
from ..numerics.newton_steps import best_of, newton, stencil
from .amortized_posterior import AmortizedPosterior
from .training_distributions import TrainingDistribution

SHARE_OF_FIRST = 0.01
NUM_STARTS = 32
ROWS = 4096


class SharpenedPosterior(nn.Module):
    r"""An amortized posterior with Newton steps behind it. Made by
    :func:`~pyro_amortized.sharpen`.

    Args:
        first: The amortized posterior.
        flow: The second flow, over z.
        structure: The program, whose density leads the steps.
        training: The training distribution, the prior of the steps.
        num_steps: Number of Newton steps.
    """

    def __init__(
        self,
        first: AmortizedPosterior,
        flow: ConditionalFlow,
        structure: ModelStructure,
        training: TrainingDistribution,
        num_steps: int,
    ) -> None:
        super().__init__()
        self.first, self.flow, self.num_steps = first, flow, num_steps
        self._program = (structure, training)  # no part of the weights

    @property
    def encoder(self) -> Encoder:
        """The encoder of the first posterior."""
        return self.first.encoder

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        return self.first.dtype

    @staticmethod
    def num_context(first: AmortizedPosterior, num_latent: int) -> int:
        """Length of the second flow's context."""
        own = len(stencil(num_latent)) - 1 + 2 * num_latent
        known = first.flow.trunk[0][0].in_features  # type: ignore[index]
        return own + int(known)

    def condition(self, cohort: Cohort, shared: Tensor) -> "SharpenedDistribution":
        r"""The posterior of every individual's parameters, in unconstrained coordinates.

        Args:
            cohort: N individuals.
            shared: Unconstrained shared parameters, shape ``(shared,)`` or ``(individual,
                shared)``.

        Raises:
            GuideError: The cohort is not of the form of the training data.
        """
        law = self.first.condition(cohort, shared)
        parts = [
            self._steps(cohort[rows], shared[rows] if shared.dim() == 2 else shared, law.take(rows))
            for rows in torch.arange(len(cohort)).split(ROWS)
        ]
        location, scale_tril, context = (torch.cat(x) for x in zip(*parts, strict=True))
        second = FlowDistribution(self.flow, context.to(self.flow.loc.dtype))
        return SharpenedDistribution(law, second, location, scale_tril)

    def for_plate(self, cohort: Cohort, shared: Tensor, extra: int) -> "SharpenedDistribution":
        """The same with singleton dimensions behind the individual's, as a plate has them; shared
        parameters may have draws in front.
        """
        lead = shared.shape[:-1][: max(0, shared.dim() - 2 - extra)]
        rows = shared.reshape(-1, shared.shape[-1])
        many = cohort.repeat(len(rows)) if len(rows) > 1 else cohort
        law = self.condition(many, rows.repeat_interleave(len(cohort), 0))
        return law.reshape(Size([*lead, len(cohort), *[1] * extra]))

    @torch.no_grad()
    def _steps(
        self, cohort: Cohort, shared: Tensor, law: FlowDistribution
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Location, scale and context of the second flow."""
        structure, training = self._program
        rows = shared.expand(len(cohort), -1)
        double = cohort.to(dtype=torch.float64)

        def target(points: Tensor) -> Tensor:
            observation = structure.log_observation(double, points, rows)
            return observation + training.individual.log_prob(double, points)

        start, scale = (x.double() for x in law.head())
        found = newton(target, *best_of(target, start, scale, NUM_STARTS), self.num_steps)
        off = torch.linalg.solve_triangular(
            found.scale_tril, (start - found.location).unsqueeze(-1), upper=False
        )
        sharper = (found.scale_tril.diagonal(dim1=1, dim2=2) / scale.diagonal(dim1=1, dim2=2)).log()
        parts = [found.shape.clamp(-8, 8) / 2, off.squeeze(-1).asinh() / 2, sharper, law.context]
        context = torch.cat([x.to(law.context.dtype) for x in parts], -1)
        return found.location, found.scale_tril, context


class SharpenedDistribution(TorchDistribution):  # type: ignore[misc]
    r"""The distribution that a sharpened posterior gives: the second flow around the mode, and a
    hundredth of the first answer.

    Args:
        first: The first answer.
        second: The second flow's, over z.
        location: Modes m, shape ``(*batch, latent)``.
        scale_tril: Scales L, shape ``(*batch, latent, latent)``.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's own declaration)
    has_rsample = True

    def __init__(
        self,
        first: FlowDistribution,
        second: FlowDistribution,
        location: Tensor,
        scale_tril: Tensor,
    ) -> None:
        self.first, self.second = first, second
        self.location, self.scale_tril = location, scale_tril
        super().__init__(location.shape[:-1], location.shape[-1:], validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """Every dimension is unconstrained."""
        return constraints.real_vector

    def take(self, rows: Tensor) -> "SharpenedDistribution":
        """The distribution of some rows of the first batch dimension."""
        return SharpenedDistribution(
            self.first.take(rows),
            self.second.take(rows),
            self.location[rows],
            self.scale_tril[rows],
        )

    def reshape(self, batch_shape: Size) -> "SharpenedDistribution":
        """The same with another batch shape of as many elements."""
        d = self.location.shape[-1]
        first, second = (
            FlowDistribution(x.flow, x.context.reshape(*batch_shape, -1))
            for x in (self.first, self.second)
        )
        location = self.location.reshape(*batch_shape, d)
        scale_tril = self.scale_tril.reshape(*batch_shape, d, d)
        return SharpenedDistribution(first, second, location, scale_tril)

    def expand(self, batch_shape: Size, _instance: None = None) -> "SharpenedDistribution":
        """The same distribution with a larger batch."""
        d = self.location.shape[-1]
        location = self.location.expand(*batch_shape, d)
        scale_tril = self.scale_tril.expand(*batch_shape, d, d)
        first, second = self.first.expand(batch_shape), self.second.expand(batch_shape)
        return SharpenedDistribution(first, second, location, scale_tril)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draws, shape ``(*sample_shape, *batch, latent)``."""
        z = self.second.rsample(sample_shape).to(self.location.dtype)
        sharp = self.location + (self.scale_tril @ z.unsqueeze(-1)).squeeze(-1)
        rough = self.first.rsample(sample_shape).to(sharp.dtype)
        chosen = torch.rand(sharp.shape[:-1], device=sharp.device) < SHARE_OF_FIRST
        return torch.where(chosen.unsqueeze(-1), rough, sharp)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, shape ``(*sample_shape, *batch)``."""
        rough = self.first.log_prob(value.to(self.first.flow_dtype))
        return mixed(self.sharp_log_prob(value), rough.to(value.dtype))

    def standardized(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Values as z, shape ``(*sample_shape, *batch, latent)``, and the log determinant of L,
        shape ``(*batch,)``.
        """
        centered = (value - self.location).unsqueeze(-1)
        tril = self.scale_tril.expand(*centered.shape[:-2], -1, -1)
        z = torch.linalg.solve_triangular(tril, centered, upper=False).squeeze(-1)
        return z, self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def sharp_log_prob(self, value: Tensor) -> Tensor:
        """Log density of the second flow alone."""
        z, log_det = self.standardized(value)
        sharp: Tensor = self.second.log_prob(z.to(self.second.flow_dtype)).to(value.dtype)
        return sharp - log_det


def mixed(sharp: Tensor, rough: Tensor) -> Tensor:
    """Log density of the mixture from those of its parts."""
    return torch.logaddexp(sharp + math.log1p(-SHARE_OF_FIRST), rough + math.log(SHARE_OF_FIRST))
