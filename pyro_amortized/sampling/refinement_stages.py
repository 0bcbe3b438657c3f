r"""Stages of the refinement of individuals whose weights are poor.

Each stage says which individuals it is needed for, and draws them anew from mixtures that it fits
to their weighted draws. Draws that a mixture is fitted to, or that decide something, are never used
in an estimate: this would bias it (decision 028).
"""

from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from ..numerics.newton_steps import LogTarget
from .importance_weights import PARETO, effective_sample_size
from .mode_mixture import NormalModes, find_modes, mixture_around_modes
from .refinement_settings import RefinementSettings, Round
from .sampler import Sampler
from .student_mixture import StudentMixture
from .weight_quality import comparable_ess, is_poor
from .weighted_draws import Refinement, Sampled, Weighted
from .weighted_fits import mixture_of_weighted


class State(NamedTuple):
    r"""Individuals on their way through the stages.

    Args:
        rows: The individuals, shape ``(row,)``.
        pilot: Weighted draws that the first mixtures are fitted to; not part of the result.
        has_few: Whether the pilot has too few effective draws for a covariance, shape ``(row,)``.
        sampled: The best draws so far; without weight before the first stage.
    """

    rows: Tensor
    pilot: Weighted
    has_few: Tensor
    sampled: Sampled

    @property
    def num_draws(self) -> int:
        """Draws of each individual."""
        return len(self.sampled.weighted.draws)

    def take(self, index: Tensor) -> "State":
        """Some of the individuals."""
        parts = (self.pilot.take(index), self.has_few[index], self.sampled.take(index))
        return State(self.rows[index], *parts)


class RefinementStage(Protocol):
    """One way to draw individuals from mixtures that are fitted to them."""

    def needed(self, state: State) -> Tensor:
        """Which individuals the stage is for, shape ``(row,)``."""
        ...

    def sample(self, sampler: Sampler, state: State, generator: Generator) -> Sampled:
        """New draws of the individuals of a state, which all need the stage."""
        ...


def run_stages(sampler: Sampler, state: State, generator: Generator) -> Sampled:
    """The draws after all stages. One of the first serves each individual; later ones replace its
    draws only where that is better.
    """
    for stage in _first_stages():
        index = indices(stage.needed(state))
        if len(index):
            new = stage.sample(sampler, state.take(index), generator)
            state = state._replace(sampled=state.sampled.replaced(index, new))
    for stage in _later_stages(sampler.settings):
        index = indices(stage.needed(state))
        if len(index):
            new = stage.sample(sampler, state.take(index), generator)
            state = state._replace(sampled=better_draws(state.sampled, index, new))
    return state.sampled


def _first_stages() -> list[RefinementStage]:
    return [OneComponent(), AroundModes()]


def _later_stages(settings: RefinementSettings) -> list[RefinementStage]:
    return [MoreComponents(x, located) for x in settings.rounds for located in (False, True)]


class OneComponent:
    """One component, fitted to the pilot and then to its own draws."""

    def needed(self, state: State) -> Tensor:
        """Individuals whose pilot determines a covariance."""
        return ~state.has_few

    def sample(self, sampler: Sampler, state: State, generator: Generator) -> Sampled:
        """Draws from the component."""
        rows, pilot, part = state.rows, state.pilot, state.sampled.refinement
        first = mixture_of_weighted(pilot, 1, generator)
        own = part.with_mixtures(_everyone(rows), first)
        drawn = sampler.from_mixture(own, len(pilot.draws), rows, generator)
        part = part.with_mixtures(_everyone(rows), mixture_of_weighted(drawn, 1, generator))
        return Sampled(sampler.from_mixture(part, state.num_draws, rows, generator), part)


class AroundModes:
    """Mixtures around the modes; where their weights are poor, mixtures that differential evolution
    has explored, with more steps where more draws are requested.
    """

    def needed(self, state: State) -> Tensor:
        """Individuals whose pilot does not determine a covariance."""
        return state.has_few

    def sample(self, sampler: Sampler, state: State, generator: Generator) -> Sampled:
        """Draws from the better of both mixtures."""
        settings, rows, num_draws = sampler.settings, state.rows, state.num_draws
        pilot, part = state.pilot, state.sampled.refinement

        def target_of(index: Tensor) -> LogTarget:
            return sampler.target_of_each(rows[index])

        modes = find_modes(target_of, pilot.draws, pilot.log_weights)
        part = part.with_mixtures(_everyone(rows), modes.mixture)
        size = max(settings.min_mode_draws, num_draws // 4)
        drawn = sampler.from_mixture(part, size, rows, generator, stretch=True)
        mixture = mixture_of_weighted(drawn, 0, generator, modes.mixture)
        part = part.with_mixtures(_everyone(rows), mixture)
        best = Sampled(sampler.from_mixture(part, num_draws, rows, generator, stretch=True), part)
        index = indices(is_poor(best.weighted.log_weights, settings.min_mode_efficiency))
        if len(index) == 0 or settings.max_evolution_steps == 0:
            return best
        poor = NormalModes(modes.mixture.take(index), modes.repeated[index])
        explored = _explored(sampler, part.take(index), poor, rows[index], num_draws, generator)
        return better_draws(best, index, explored)


class MoreComponents:
    """More components, and more draws that they are fitted to.

    Args:
        settings: Numbers of components and draws, and the smallest effective share.
        around_modes: Whether the stage is for mixtures around modes, which keep their components.
    """

    def __init__(self, settings: Round, around_modes: bool) -> None:
        self.settings, self.around_modes = settings, around_modes

    def needed(self, state: State) -> Tensor:
        """Individuals whose weights are poor, with mixtures of this kind."""
        log_weights = state.sampled.weighted.log_weights
        is_own = state.has_few == self.around_modes
        # A second mode that few draws reach shows in Pareto k before it does in the effective
        # draws: with k up to 0.7, -2LL of 16 individuals was 0.18 too large.
        max_k = PARETO.finite_variance
        return is_poor(log_weights, self.settings.min_efficiency, max_k) & is_own

    def sample(self, sampler: Sampler, state: State, generator: Generator) -> Sampled:
        """Draws from the mixtures."""
        current, rows, num_draws = state.sampled, state.rows, state.num_draws
        num_components, factor, _ = self.settings
        # A mixture around modes keeps its components, which are then the start.
        start = current.refinement.mixture if self.around_modes else None
        mixture = mixture_of_weighted(current.weighted, num_components, generator, start)
        part = current.refinement.with_mixtures(_everyone(rows), mixture)
        if factor > 1:
            size = factor * num_draws
            drawn = sampler.from_mixture(part, size, rows, generator, stretch=self.around_modes)
            mixture = mixture_of_weighted(drawn, num_components, generator, start)
            part = part.with_mixtures(_everyone(rows), mixture)
        drawn = sampler.from_mixture(part, num_draws, rows, generator, stretch=self.around_modes)
        return Sampled(drawn, part)


def _explored(
    sampler: Sampler,
    part: Refinement,
    modes: NormalModes,
    rows: Tensor,
    num_draws: int,
    generator: Generator,
) -> Sampled:
    """Draws from mixtures that differential evolution has explored."""
    settings = sampler.settings
    num_steps = num_draws // settings.draws_per_evolution_step
    num_steps = max(settings.min_evolution_steps, min(settings.max_evolution_steps, num_steps))
    target = sampler.target_of_each(rows)
    mixture = mixture_around_modes(target, modes, generator, num_steps)
    size = max(num_draws, settings.min_located_draws)
    mixture = _adapted(sampler, mixture, rows, size, generator)
    part = part.with_mixtures(_everyone(rows), mixture)
    return Sampled(sampler.from_mixture(part, num_draws, rows, generator, stretch=True), part)


def _adapted(
    sampler: Sampler, mixture: StudentMixture, rows: Tensor, num_draws: int, generator: Generator
) -> StudentMixture:
    """The mixture fitted once more, to weighted draws of itself, of a wider copy and of a
    stretched copy: differential evolution rarely reaches the far end of a curved region.
    """
    settings = sampler.settings
    spread = sampler.population(settings.num_population_draws, rows, generator).std(0)
    quarter = num_draws // 4
    sources = [
        (num_draws - 2 * quarter, mixture),
        (quarter, mixture.widened(settings.widening_factor)),
        (quarter, mixture.stretched(spread)),
    ]
    draws = torch.cat([x.draw(num, generator) for num, x in sources])
    weighted = sampler.weighted_by_mixture(draws, [(n, x.log_prob) for n, x in sources], rows)
    return mixture_of_weighted(weighted, 0, generator, mixture)


def refined_draws(
    sampler: Sampler,
    part: Refinement,
    pilot: Weighted,
    rows: Tensor,
    num_draws: int,
    generator: Generator,
) -> Sampled:
    r"""Draws from mixtures that are fitted to a pilot, improved in stages.

    Args:
        sampler: The sampler.
        part: Refinement of these individuals; its mixtures are replaced.
        pilot: Weighted draws of these individuals, not used in the result.
        rows: The individuals.
        num_draws: Draws per individual.
        generator: Source of randomness.
    """
    settings = sampler.settings
    has_few = effective_sample_size(pilot.log_weights) < settings.min_effective_pilot
    nothing = Sampled(Weighted.without_weight(num_draws, len(rows), pilot), part)
    state = State(rows, pilot, has_few, nothing)
    return run_stages(sampler, state, generator)


def better_draws(current: Sampled, rows: Tensor, new: Sampled) -> Sampled:
    """New draws of some individuals, with their refinement, where their weights are better."""
    before = comparable_ess(current.weighted.take(rows).log_weights)
    better = comparable_ess(new.weighted.log_weights) > before
    return current.replaced(rows[better], new.take(indices(better)))


def indices(mask: Tensor) -> Tensor:
    """Indices where a mask of one dimension is True."""
    return mask.nonzero()[:, 0]


def _everyone(rows: Tensor) -> Tensor:
    return torch.arange(len(rows))
