r"""The amortized posterior with Newton steps on the model's own density.

The networks give the location of a narrow posterior only roughly. The density of the model gives it
exactly. From the best of some draws of the first posterior :math:`q_1`, Newton steps on
:math:`\log p(y \mid u, c) + \log \tilde p(u)` lead to the mode m and the curvature
:math:`(L L^\top)^{-1}` there. A second flow :math:`q_2` is the distribution of

.. math:: z = L^{-1} (u - m),

given the log densities in some points around the mode and the summary of the first networks. The
posterior is the mixture

.. math:: q(u \mid y, c) = (1 - \varepsilon)\, q_2(z \mid \ldots) / |L| + \varepsilon\, q_1(u \mid
    y, c) .

Its second part covers the posterior where the steps ended in another mode. In :math:`q_2` itself a
part of the draws comes from a Student distribution, for the tails.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from ..cohort import Cohort
from ..encode import Encoder
from ..model import ModelStructure
from ..networks.conditional_flow import ConditionalFlow, FlowDistribution
from ..numerics.gaussians import Gaussians
from ..numerics.newton_steps import LogTarget, best_of, climb, newton, stencil
from .amortized_posterior import AmortizedPosterior, PriorFeatures
from .training_distributions import TrainingDistribution


@dataclass(frozen=True)
class SharpenedSettings:
    r"""Sizes of the Newton steps and the mixture.

    Args:
        share_of_first: Weight :math:`\varepsilon` of the first posterior. One hundredth costs 0.01
            nats where the steps always end in the right mode (decision 027).
        share_of_tails: Part of the draws around the mode that come from a Student distribution with
            the scale there. Without it single draws in the tails, where the flow has learned
            little, had a quarter of the weight of an individual (decision 090).
        tail_freedom: Its degrees of freedom.
        num_starts: Draws of the first posterior, of which the best are starts of the steps. From
            the location of the networks alone, one data set in seven ended in a wrong mode
            (decision 026).
        num_climbs: Number of starts. The highest mode that they lead to is used.
        rows: Individuals whose steps are taken at once, which bounds the memory.
        max_shape: Bound of the standardized log densities around the mode, as the second flow gets
            them.
    """

    share_of_first: float = 0.01
    share_of_tails: float = 0.02
    tail_freedom: float = 5.0
    num_starts: int = 32
    num_climbs: int = 4
    rows: int = 4096
    max_shape: float = 8.0


SETTINGS = SharpenedSettings()


class SharpenedPosterior(nn.Module):
    r"""An amortized posterior with Newton steps behind it. Made by
    :func:`~pyro_amortized.sharpen`.

    Args:
        first: The amortized posterior.
        flow: The second flow, over z.
        structure: The structure of the model, whose density the steps use.
        training: The training distribution.
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
        self._model = (structure, training)  # In a tuple: no part of the weights.

    @property
    def encoder(self) -> Encoder:
        """The encoder of the first posterior."""
        return self.first.encoder

    @property
    def prior_features(self) -> PriorFeatures | None:
        """How the networks are told the distribution of an individual given the population."""
        return self.first.prior_features

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights."""
        return self.first.dtype

    @staticmethod
    def num_context(first: AmortizedPosterior, num_latent: int) -> int:
        """Length of the second flow's context."""
        num_newton = len(stencil(num_latent)) - 1 + 2 * num_latent
        num_first = first.flow.trunk[0][0].in_features  # type: ignore[index]
        return num_newton + int(num_first)

    def condition(
        self, cohort: Cohort, shared: Tensor, priors: Gaussians | None = None
    ) -> "SharpenedDistribution":
        r"""The posterior of every individual's parameters, in unconstrained coordinates.

        Args:
            cohort: N individuals.
            shared: Unconstrained shared parameters, shape ``(shared,)`` or ``(individual,
                shared)``.
            priors: Distribution of each individual's parameters given the population, batch shape
                ``(individual,)``. Default: that of all populations of the training together.

        Raises:
            GuideError: The series, channels or covariates of the cohort are not those of the
                training data.
        """
        first = self.first.condition(cohort, shared, priors)
        shared = shared.expand(len(cohort), -1)
        parts = [
            self._steps(cohort[rows], shared[rows], first.take(rows))
            for rows in torch.arange(len(cohort)).split(SETTINGS.rows)
        ]
        location, scale_tril, context = (torch.cat(x) for x in zip(*parts, strict=True))
        second = FlowDistribution(self.flow, context.to(self.flow.loc.dtype))
        return SharpenedDistribution(first, second, location, scale_tril)

    def for_plate(
        self, cohort: Cohort, shared: Tensor, extra: int, priors: Gaussians | None = None
    ) -> "SharpenedDistribution":
        """The same posterior with the batch shape of a Pyro plate, see
        :meth:`AmortizedPosterior.for_plate
        <pyro_amortized.guide.amortized_posterior.AmortizedPosterior.for_plate>`.
        """
        draws_shape = shared.shape[:-1][: max(0, shared.dim() - 2 - extra)]
        draws = shared.reshape(-1, shared.shape[-1])
        repeated_cohort = cohort.repeat(len(draws)) if len(draws) > 1 else cohort
        rows = torch.Size([len(repeated_cohort)])
        if priors is not None:
            priors = priors.expand(torch.Size([*draws_shape, len(cohort)])).reshape(rows)
        posterior = self.condition(repeated_cohort, draws.repeat_interleave(len(cohort), 0), priors)
        return posterior.reshape(Size([*draws_shape, len(cohort), *[1] * extra]))

    @torch.no_grad()
    def _steps(
        self, cohort: Cohort, shared: Tensor, first: FlowDistribution
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Location, scale and context of the second flow."""
        structure, training = self._model
        double = cohort.to(dtype=torch.float64)
        priors = first.standard.map(Tensor.double).expand(Size([len(cohort)]))

        def target_of(rows: Tensor) -> LogTarget:
            some, some_shared = double[rows], shared[rows]
            some_priors = priors.take(rows)

            def target(points: Tensor) -> Tensor:
                by_row = points.reshape(-1, len(rows), points.shape[-1])
                observation = structure.log_observation(some, by_row, some_shared)
                density = observation + training.individual.log_prob(some, some_priors, by_row)
                return density.reshape(points.shape[:-1])

            return target

        start, scale = (x.double() for x in first.head())
        target = target_of(torch.arange(len(cohort)))
        best = best_of(target, start, scale, SETTINGS.num_starts, SETTINGS.num_climbs)
        location, reached, density = climb(target_of, *best, self.num_steps, merge=True)
        highest, rows = density.argmax(0), torch.arange(len(cohort))
        mode = newton(target, location[highest, rows], reached[highest, rows], 0)
        shift = torch.linalg.solve_triangular(
            mode.scale_tril, (start - mode.location).unsqueeze(-1), upper=False
        )
        scales = mode.scale_tril.diagonal(dim1=1, dim2=2) / scale.diagonal(dim1=1, dim2=2)
        shape = mode.shape.clamp(-SETTINGS.max_shape, SETTINGS.max_shape)
        parts = [shape / 2, shift.squeeze(-1).asinh() / 2, scales.log(), first.context]
        context = torch.cat([x.to(first.context.dtype) for x in parts], -1)
        return mode.location, mode.scale_tril, context


class SharpenedDistribution(TorchDistribution):  # type: ignore[misc]
    r"""The distribution that a sharpened posterior gives: a mixture of the second flow around the
    mode and a hundredth of the first posterior.

    Args:
        first: The first posterior.
        second: The distribution of z, from the second flow.
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
        first, second = (x.reshape(batch_shape) for x in (self.first, self.second))
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
        draws = self._around_mode(self._draws_of_second(sample_shape)[0])
        is_first, _, from_first = self._draws_of_first(draws.shape[:-1])
        return draws.masked_scatter(is_first.unsqueeze(-1), from_first.to(draws.dtype))

    def sample_with_log_prob(self, sample_shape: Size) -> tuple[Tensor, Tensor]:
        """Draws and their log density. The first posterior draws only its own share, and the second
        flow is evaluated only there; their own densities come with the draws of it.
        """
        z, log_z = self._draws_of_second(sample_shape)
        draws = self._around_mode(z)
        is_first, index, from_first = self._draws_of_first(draws.shape[:-1])
        from_first = from_first.to(draws.dtype)
        draws = draws.masked_scatter(is_first.unsqueeze(-1), from_first)
        log_second = log_z.to(draws.dtype) - self._log_det
        at_first = self._flat().take(index).log_prob_of_second(from_first)
        log_second = log_second.masked_scatter(is_first, at_first)
        log_first = self.first.log_prob(draws.to(self.first.flow_dtype)).to(draws.dtype)
        return draws, log_mixture(log_second, log_first)

    def _around_mode(self, z: Tensor) -> Tensor:
        """Parameters of z, same shape."""
        scaled = (self.scale_tril @ z.to(self.location.dtype).unsqueeze(-1)).squeeze(-1)
        return self.location + scaled

    def _draws_of_first(self, shape: Size) -> tuple[Tensor, Tensor, Tensor]:
        """Which draws ``(*sample_shape, *batch)`` come from the first posterior, the elements of
        the batch that these belong to, and the draws, shape ``(chosen, latent)``.
        """
        is_first, index = self._chosen(shape, SETTINGS.share_of_first)
        return is_first, index, self._flat().first.take(index).rsample()

    def _draws_of_second(self, sample_shape: Size) -> tuple[Tensor, Tensor]:
        """Draws of z, a part of them from the tails, and their log density."""
        z, log_flow = self.second.sample_with_log_prob(sample_shape)
        is_tail, index = self._chosen(z.shape[:-1], SETTINGS.share_of_tails)
        normal = torch.randn(len(index), z.shape[-1], dtype=z.dtype, device=z.device)
        freedom = torch.full((len(index), 1), SETTINGS.tail_freedom).to(z)
        from_tails = normal * (freedom / (2 * torch._standard_gamma(freedom / 2))).sqrt()
        at_tails = self._flat().second.take(index).log_prob(from_tails)
        z = z.masked_scatter(is_tail.unsqueeze(-1), from_tails)
        return z, log_with_tails(log_flow.masked_scatter(is_tail, at_tails), z)

    def _chosen(self, shape: Size, share: float) -> tuple[Tensor, Tensor]:
        """A random share of the draws ``(*sample_shape, *batch)``, and the elements of the batch
        that they belong to.
        """
        chosen = torch.rand(shape, device=self.location.device) < share
        return chosen, chosen.reshape(-1, self.batch_shape.numel()).nonzero()[:, 1]

    def _flat(self) -> "SharpenedDistribution":
        """The same distributions with one batch dimension."""
        return self.reshape(Size([self.batch_shape.numel()]))

    @property
    def _log_det(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, shape ``(*sample_shape, *batch)``."""
        log_first = self.first.log_prob(value.to(self.first.flow_dtype))
        return log_mixture(self.log_prob_of_second(value), log_first.to(value.dtype))

    def standardized(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Values as z, shape ``(*sample_shape, *batch, latent)``, and the log determinant of L,
        shape ``(*batch,)``.
        """
        centered = (value - self.location).unsqueeze(-1)
        tril = self.scale_tril.expand(*centered.shape[:-2], -1, -1)
        z = torch.linalg.solve_triangular(tril, centered, upper=False).squeeze(-1)
        return z, self._log_det

    def log_prob_of_second(self, value: Tensor) -> Tensor:
        """Log density of the second part of the mixture, shape ``(*sample_shape, *batch)``."""
        z, log_det = self.standardized(value)
        z = z.to(self.second.flow_dtype)
        log_z = log_with_tails(self.second.log_prob(z), z).to(value.dtype)
        return log_z - log_det


def log_with_tails(log_flow: Tensor, z: Tensor) -> Tensor:
    """Log density of z, from that under the flow: a part of it is a Student distribution."""
    freedom, d, share = SETTINGS.tail_freedom, z.shape[-1], SETTINGS.share_of_tails
    half = (freedom + d) / 2
    constant = math.lgamma(half) - math.lgamma(freedom / 2) - d / 2 * math.log(freedom * math.pi)
    log_tails = constant - half * (z.square().sum(-1) / freedom).log1p()
    return torch.logaddexp(log_flow + math.log1p(-share), log_tails + math.log(share))


def log_mixture(log_second: Tensor, log_first: Tensor) -> Tensor:
    """Log density of the mixture from those of its parts."""
    share = SETTINGS.share_of_first
    return torch.logaddexp(log_second + math.log1p(-share), log_first + math.log(share))
