r"""The amortized posterior with Newton steps on the model's own density.

The networks give the location of a narrow posterior only roughly. The density of the model gives it
exactly. From some of the best draws of the first posterior :math:`q_1`, Newton steps on
:math:`\log p(y \mid u, c) + \log \tilde p(u)` lead to the modes :math:`m_j` and the curvatures
:math:`(L_j L_j^\top)^{-1}` there. A second flow :math:`q_2` is the distribution of
:math:`z_j = L_j^{-1} (u - m_j)`, given the log densities in some points around the mode and the
summary of the first networks. The posterior is their mixture, with shares by Laplace's
approximation, and a hundredth of :math:`q_1`
(:mod:`pyro_amortized.guide.sharpened_distribution`).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Size, Tensor, nn

from ..cohort import Cohort
from ..encode import Encoder
from ..model import ModelStructure
from ..networks.conditional_flow import ConditionalFlow, FlowDistribution
from ..numerics.gaussians import Gaussians
from ..numerics.newton_steps import LogTarget, best_of, climb, is_highest, newton, stencil
from ..numerics.row_groups import RowGroups
from .amortized_posterior import AmortizedPosterior, PriorFeatures
from .sharpened_distribution import Modes, SharpenedDistribution
from .training_distributions import TrainingDistribution


@dataclass(frozen=True)
class SharpenedSettings:
    r"""Sizes of the Newton steps.

    Args:
        num_starts: Draws of the first posterior, of which the best are starts of the steps. From
            the location of the networks alone, one data set in seven ended in a wrong mode
            (decision 026).
        num_climbs: Number of starts.
        apart: Smallest distance of the starts in the standard deviations of the first posterior, as
            far as there are such. The best draws alone often lie at one of two modes.
        least_mass: Modes whose mass by Laplace's approximation is a smaller part of the largest are
            left out.
        even_share: Part of the draws around the modes that is spread over them evenly, since
            Laplace's approximation of their masses may be wrong.
        rows: Individuals whose steps are taken at once, which bounds the memory.
        max_shape: Bound of the standardized log densities around the mode, as the second flow gets
            them.
    """

    num_starts: int = 32
    num_climbs: int = 4
    apart: float = 1.0
    least_mass: float = 1e-3
    even_share: float = 0.05
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
        found = FoundModes(*(torch.cat(x) for x in zip(*parts, strict=True)))
        return SharpenedDistribution(first, found.with_flow(self.flow))

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
    def _steps(self, cohort: Cohort, shared: Tensor, first: FlowDistribution) -> "FoundModes":
        """The modes of some individuals."""
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
        best = best_of(
            target, start, scale, SETTINGS.num_starts, SETTINGS.num_climbs, SETTINGS.apart
        )
        location, reached, density = climb(target_of, *best, self.num_steps, merge=True)
        mass = density + log_diagonal(reached).sum(-1)
        is_kept = is_highest(location, reached, density)
        is_kept = is_kept & (mass > mass.amax(0) + math.log(SETTINGS.least_mass))
        is_kept[mass.argmax(0), torch.arange(len(cohort))] = True  # Where no mass is finite, too.
        rows, climbs = is_kept.T.nonzero(as_tuple=True)
        mode = newton(target_of(rows), location[climbs, rows], reached[climbs, rows], 0)
        shift = torch.linalg.solve_triangular(
            mode.scale_tril, (start[rows] - mode.location).unsqueeze(-1), upper=False
        )
        scales = log_diagonal(mode.scale_tril) - log_diagonal(scale[rows])
        shape = mode.shape.clamp(-SETTINGS.max_shape, SETTINGS.max_shape)
        parts = [shape / 2, shift.squeeze(-1).asinh() / 2, scales, first.context[rows]]
        context = torch.cat([x.to(first.context.dtype) for x in parts], -1)
        found = (is_kept.sum(0), mode.location, mode.scale_tril, context, mass[climbs, rows])
        return FoundModes(*found)


class FoundModes(NamedTuple):
    r"""The modes that the Newton steps have led to.

    Args:
        counts: Number of modes of each individual, shape ``(individual,)``.
        location: Modes, shape ``(mode, latent)``.
        scale_tril: Scales there, shape ``(mode, latent, latent)``.
        context: Context of the second flow, shape ``(mode, context)``.
        log_mass: Their masses by Laplace's approximation, shape ``(mode,)``.
    """

    counts: Tensor
    location: Tensor
    scale_tril: Tensor
    context: Tensor
    log_mass: Tensor

    def with_flow(self, flow: ConditionalFlow) -> Modes:
        """The flow around them."""
        groups = RowGroups(self.counts)
        log_mass = self.log_mass.nan_to_num(0.0, 0.0, 0.0)
        share = (log_mass - groups.logsumexp(log_mass)[groups.rows]).exp()
        even = SETTINGS.even_share
        share = (1 - even) * share + even / self.counts[groups.rows]
        second = FlowDistribution(flow, self.context.to(flow.loc.dtype))
        return Modes(groups, second, self.location, self.scale_tril, share.log())


def log_diagonal(scale_tril: Tensor) -> Tensor:
    """Logs of the diagonal, ``(*batch, latent, latent)`` to ``(*batch, latent)``."""
    return scale_tril.diagonal(dim1=-2, dim2=-1).log()
