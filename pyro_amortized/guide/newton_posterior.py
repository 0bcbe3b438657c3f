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
from ..numerics.newton_steps import (
    LogTarget,
    LogTargetOf,
    best_of,
    climb,
    is_highest,
    newton,
    stencil,
)
from ..numerics.row_groups import RowGroups
from .amortized_posterior import AmortizedPosterior, PriorFeatures
from .sharpened_distribution import Modes, SharpenedDistribution
from .training_distributions import TrainingDistribution


class StartNumbers(NamedTuple):
    """Of so many draws, the best so many are starts, at least this distance apart as long as there
    are such, in standard deviations.
    """

    num_draws: int
    num_starts: int
    apart: float


@dataclass(frozen=True)
class SharpenedSettings:
    r"""Sizes of the Newton steps.

    Args:
        first_starts: Starts of the steps from the first posterior. From the location of the
            networks alone, one data set in seven ended in a wrong mode (decision 026), and the best
            draws often lie at one of two modes.
        prior_starts: The same from the distribution of the individual given the population: the
            networks may have blurred a second mode (decision 093).
        num_pilot: Individuals of a large cohort whose modes are searched with the further starts.
            If these raise their log likelihoods, by Laplace's approximation, by less than
            ``least_gain`` on average, the others do without.
        max_values: Largest number of observed values that the steps from these starts evaluate in a
            large cohort, some seconds. Beyond it there are none.
        max_modes: Largest number of modes of an individual, those with the largest masses.
        least_mass: Modes whose mass by Laplace's approximation is a smaller part of the largest are
            left out.
        even_share: Part of the draws around the modes that is spread over them evenly, since
            Laplace's approximation of their masses may be wrong.
        rows: Individuals whose steps are taken at once, which bounds the memory.
        max_shape: Bound of the standardized log densities around the mode, as the second flow gets
            them.
    """

    first_starts: StartNumbers = StartNumbers(32, 4, 1.0)  # noqa: RUF009  (a frozen value)
    prior_starts: StartNumbers = StartNumbers(64, 12, 1.0)  # noqa: RUF009
    num_pilot: int = 256
    least_gain: float = 1e-3
    max_values: int = 100_000_000
    max_modes: int = 6
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
        self,
        cohort: Cohort,
        shared: Tensor,
        priors: Gaussians | None = None,
        from_prior: bool = True,
    ) -> SharpenedDistribution:
        r"""The posterior of every individual's parameters, in unconstrained coordinates.

        Args:
            cohort: N individuals.
            shared: Unconstrained shared parameters, shape ``(shared,)`` or ``(individual,
                shared)``.
            priors: Distribution of each individual's parameters given the population, batch shape
                ``(individual,)``. Default: that of all populations of the training together.
            from_prior: Whether modes are searched from draws of the population, too.

        Raises:
            GuideError: The series, channels or covariates of the cohort are not those of the
                training data.
        """
        first = self.first.condition(cohort, shared, priors)
        shared, every = shared.expand(len(cohort), -1), torch.arange(len(cohort))
        from_prior = from_prior and self._finds_more(cohort, shared, first)
        parts = [
            self._modes(cohort[rows], shared[rows], first.take(rows), from_prior)
            for rows in every.split(SETTINGS.rows)
        ]
        found = FoundModes(*(torch.cat(x) for x in zip(*parts, strict=True)))
        return SharpenedDistribution(first, found.with_flow(self.flow))

    def _finds_more(self, cohort: Cohort, shared: Tensor, first: FlowDistribution) -> bool:
        """Whether the starts from the population are affordable and find modes that the others
        miss; of a small cohort they are always used.
        """
        if len(cohort) <= SETTINGS.num_pilot:
            return True
        num_points = self.num_steps * len(stencil(self.first.flow.num_latent))
        num_evaluated = SETTINGS.prior_starts.num_starts * num_points
        if cohort.num_values * num_evaluated > SETTINGS.max_values:
            return False
        rows = torch.linspace(0, len(cohort) - 1, SETTINGS.num_pilot).long()
        pilot = (cohort[rows], shared[rows], first.take(rows))
        more, fewer = (self._modes(*pilot, from_prior).log_masses for from_prior in (True, False))
        return float((more - fewer).nan_to_num(0.0, 0.0, 0.0).mean()) > SETTINGS.least_gain

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
    def _modes(
        self, cohort: Cohort, shared: Tensor, first: FlowDistribution, from_prior: bool
    ) -> "FoundModes":
        """The modes of some individuals."""
        every = torch.arange(len(cohort))
        priors = first.standard.map(Tensor.double).expand(Size([len(cohort)]))
        target_of = self._target_of(cohort.to(dtype=torch.float64), shared, priors)
        start, scale = (x.double() for x in first.head())
        starts = [best_of(target_of(every), Gaussians(start, scale), *SETTINGS.first_starts)]
        if from_prior:
            starts.append(best_of(target_of(every), priors, *SETTINGS.prior_starts))
        location, reached = (torch.cat(x) for x in zip(*starts, strict=True))
        location, reached, density = climb(target_of, location, reached, self.num_steps, merge=True)
        mass = density + log_diagonal(reached).sum(-1)
        is_kept = _largest(mass, is_highest(location, reached, density))
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

    def _target_of(self, cohort: Cohort, shared: Tensor, priors: Gaussians) -> LogTargetOf:
        """The log densities of data and parameters of some individuals."""
        structure, training = self._model

        def target_of(rows: Tensor) -> LogTarget:
            some, some_shared, some_priors = cohort[rows], shared[rows], priors.take(rows)

            def target(points: Tensor) -> Tensor:
                by_row = points.reshape(-1, len(rows), points.shape[-1])
                observation = structure.log_observation(some, by_row, some_shared)
                density = observation + training.individual.log_prob(some, some_priors, by_row)
                return density.reshape(points.shape[:-1])

            return target

        return target_of


def _largest(mass: Tensor, is_highest: Tensor) -> Tensor:
    """Which of the modes are kept, at least one of each individual, shape ``(start, N)``."""
    place = mass.masked_fill(~is_highest, -torch.inf).argsort(0, descending=True).argsort(0)
    is_large = mass > mass.amax(0) + math.log(SETTINGS.least_mass)
    return (place == 0) | (is_highest & is_large & (place < SETTINGS.max_modes))


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

    @property
    def log_masses(self) -> Tensor:
        """Log of the sum of the masses of each individual, shape ``(individual,)``."""
        return RowGroups(self.counts).logsumexp(self.log_mass)

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
