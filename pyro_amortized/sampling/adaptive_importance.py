r"""Adaptive importance sampling of many small targets, each of which is refined separately.

First, draws come from the guide. Where their weights are poor, they come from the defensive mixture

.. math:: q_i = 0.9\, t_i + 0.05\, \hat g_i + 0.05\, p(u \mid \Psi)

of a mixture of Student-t distributions :math:`t_i` that is fitted to weighted draws of this
individual, a mixture :math:`\hat g_i` in the shape of the guide, and the population. Draws that a
mixture is fitted to, or that decide something, are never used in an estimate: this would bias it
(decision 028).

The module has no access to the cohort or the model. Targets, proposals and the population are
functions of draws ``(draw, row, latent)`` and of the rows (individuals) that the draws belong to.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ..numerics.newton_steps import Target
from .importance_weights import effective_sample_size, finite_or_zero_weight
from .mode_mixture import Modes, find_modes, mixture_around_modes
from .proposals import Proposal, Refinement, Sampled, Weighted
from .refinement_settings import REFINEMENT, RefinementSettings
from .sampling_stage import Stage
from .student_mixture import StudentMixture
from .weight_quality import comparable_ess, is_poor
from .weighted_fits import guide_mixture, mixture_of_weighted

LogDensity = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, Tensor, Generator], Tensor]
Source = tuple[int, Callable[[Tensor], Tensor]]


@dataclass(frozen=True, eq=False)
class Sampler:
    r"""Importance sampling of a batch of targets, with a refinement per individual.

    Args:
        target: Log target density of draws ``(draw, row, latent)`` of the given rows.
        population: Draws from the population, of given number and rows.
        log_population: Log density of the population at draws of the given rows.
        proposal: The guide.
        settings: When and how individuals are refined.
    """

    target: LogDensity
    population: Draw
    log_population: LogDensity
    proposal: Proposal
    settings: RefinementSettings = REFINEMENT

    def sample(
        self,
        num_draws: int,
        num: int,
        generator: Generator,
        refine: bool,
        known: Refinement | None = None,
    ) -> Sampled:
        r"""Weighted draws of ``num`` individuals, and the refinement they were made with.

        Args:
            num_draws: Draws per individual.
            num: Number of individuals; they are sampled in parts of limited size.
            generator: Source of randomness.
            refine: Refine individuals whose weights are poor.
            known: A refinement of the same individuals, for instance for another population. It
                is tried first.
        """
        parts = []
        for rows in torch.arange(num).split(max(1, self.settings.max_rows // num_draws)):
            if not refine:
                weighted = self.from_proposal(num_draws, rows, generator)
                parts.append(Sampled(weighted, self._no_refinement(weighted)))
            elif known is None:
                parts.append(self._sample_first(num_draws, rows, generator))
            else:
                parts.append(self._sample_known(num_draws, rows, generator, known.take(rows)))
        return Sampled(
            Weighted.cat([part.weighted for part in parts]),
            Refinement.cat([part.refinement for part in parts]),
        )

    def _no_refinement(self, like: Weighted) -> Refinement:
        settings = self.settings
        return Refinement.none(like, settings.max_components, settings.num_guide_components)

    def _sample_first(self, num_draws: int, rows: Tensor, generator: Generator) -> Sampled:
        """Draws from the guide where a pilot is good enough, else from a refinement."""
        settings = self.settings
        num_pilot = max(settings.min_pilot_draws, round(settings.pilot_share * num_draws))
        pilot = self.from_proposal(num_pilot, rows, generator)
        poor = is_poor(pilot.log_weights, settings.min_pilot_efficiency)
        good = _indices(~poor)
        weighted = Weighted.without_weight(num_draws, len(rows), pilot)
        if len(good):
            drawn = self.from_proposal(num_draws, rows[good], generator)
            weighted = weighted.replaced(good, drawn)
            poor[good] = is_poor(drawn.log_weights, settings.min_efficiency)
        sampled = Sampled(weighted, self._no_refinement(pilot))
        return self._refined(sampled, poor, pilot, rows, generator)

    def _sample_known(
        self, num_draws: int, rows: Tensor, generator: Generator, known: Refinement
    ) -> Sampled:
        """Draws from a known refinement; where their weights are poor, a new refinement."""
        settings = self.settings
        weighted = self._from_known(num_draws, rows, generator, known)
        limit = torch.where(known.refined, settings.min_known_efficiency, settings.min_efficiency)
        poor = is_poor(weighted.log_weights, limit)
        enough = effective_sample_size(weighted.log_weights) >= settings.min_effective_pilot
        refinement, adapted = known, _indices(poor & known.refined & enough)
        if len(adapted):  # enough effective draws to adapt the mixture, with all its modes
            start = known.mixture.take(adapted)
            mixture = mixture_of_weighted(weighted.take(adapted), 0, generator, start)
            refinement = known.with_mixtures(adapted, mixture)
            drawn = self.from_mixture(
                refinement.take(adapted), num_draws, rows[adapted], generator, True
            )
            weighted = weighted.replaced(adapted, drawn)
            poor[adapted] = is_poor(drawn.log_weights, settings.min_known_efficiency)
        return self._refined(Sampled(weighted, refinement), poor, weighted, rows, generator)

    def _from_known(
        self, num_draws: int, rows: Tensor, generator: Generator, known: Refinement
    ) -> Weighted:
        """Draws from the guide, or from the known mixture of an individual."""
        parts = []
        for refined in (False, True):
            index = _indices(known.refined if refined else ~known.refined)
            if len(index) == 0:
                continue
            part = known.take(index)
            drawn = (
                self.from_mixture(part, num_draws, rows[index], generator, True)
                if refined
                else self.from_proposal(num_draws, rows[index], generator)
            )
            parts.append((index, drawn))
        weighted = Weighted.without_weight(num_draws, len(rows), parts[0][1])
        for index, drawn in parts:
            weighted = weighted.replaced(index, drawn)
        return weighted

    def _refined(
        self, sampled: Sampled, poor: Tensor, pilot: Weighted, rows: Tensor, generator: Generator
    ) -> Sampled:
        """Poor individuals are refined, from weighted draws that are not used otherwise."""
        weighted, refinement = sampled
        from_guide = _indices(poor & ~refinement.refined)
        if len(from_guide):
            guide = guide_mixture(pilot.draws[:, from_guide], generator)
            refinement = refinement.with_guides(from_guide, guide)
        index = _indices(poor)
        if len(index):
            part, num_draws = refinement.take(index), len(weighted.draws)
            result = self.refined_draws(part, pilot.take(index), rows[index], num_draws, generator)
            weighted = weighted.replaced(index, result.weighted)
            refinement = refinement.with_mixtures(index, result.refinement.mixture)
        # A new mixture may have lost a minor mode. Where there was none, none is searched again.
        num_modes = torch.where(poor & (refinement.num_modes > 1), 0, refinement.num_modes)
        stage = refinement.stage.masked_fill(poor, Stage.MIXTURE)
        return Sampled(weighted, replace(refinement, stage=stage, num_modes=num_modes))

    def from_proposal(self, num_draws: int, rows: Tensor, generator: Generator) -> Weighted:
        """Weighted draws of some individuals from the guide."""
        draws, log_proposal = self.proposal.draw(num_draws, rows, generator)
        return self._weighted(draws, log_proposal, rows)

    def _weighted(self, draws: Tensor, log_proposal: Tensor, rows: Tensor) -> Weighted:
        log_weights = finite_or_zero_weight(self.target(draws, rows) - log_proposal)
        return Weighted(draws, log_proposal, log_weights)

    def refined_draws(
        self,
        part: Refinement,
        pilot: Weighted,
        rows: Tensor,
        num_draws: int,
        generator: Generator,
    ) -> Sampled:
        r"""Draws from mixtures that are fitted to a pilot, improved in rounds.

        Args:
            part: Refinement of these individuals; its mixtures are replaced.
            pilot: Weighted draws of these individuals, not used in the result.
            rows: The individuals.
            num_draws: Draws per individual.
            generator: Source of randomness.
        """
        ess = effective_sample_size(pilot.log_weights)
        few = ess < self.settings.min_effective_pilot
        weighted = Weighted.without_weight(num_draws, len(rows), pilot)
        for selected, located in ((~few, False), (few, True)):
            index = _indices(selected)
            if len(index) == 0:
                continue
            source = pilot.take(index)
            if located:
                sampled = self._located(part.take(index), source, rows[index], num_draws, generator)
                part = part.with_mixtures(index, sampled.refinement.mixture)
                weighted = weighted.replaced(index, sampled.weighted)
                continue
            else:  # one component, fitted to the pilot and then to its own draws
                first = mixture_of_weighted(source, 1, generator)
                own = part.with_mixtures(index, first).take(index)
                drawn = self.from_mixture(own, len(pilot.draws), rows[index], generator)
                mixture = mixture_of_weighted(drawn, 1, generator)
            part = part.with_mixtures(index, mixture)
            drawn = self.from_mixture(part.take(index), num_draws, rows[index], generator)
            weighted = weighted.replaced(index, drawn)
        return self._improved(Sampled(weighted, part), rows, few, generator)

    def _improved(
        self, best: Sampled, rows: Tensor, located: Tensor, generator: Generator
    ) -> Sampled:
        """Rounds with more components and more draws for individuals whose weights are poor."""
        num_draws = len(best.weighted.draws)
        for num_components, factor, efficiency in self.settings.rounds:
            poor = is_poor(best.weighted.log_weights, efficiency)
            for selected, stretch in ((poor & ~located, False), (poor & located, True)):
                index = _indices(selected)
                if len(index) == 0:
                    continue
                current, everyone = best.take(index), torch.arange(len(index))
                # A mixture around modes keeps its components, which are then the start.
                start = current.refinement.mixture if stretch else None
                mixture = mixture_of_weighted(current.weighted, num_components, generator, start)
                part = current.refinement.with_mixtures(everyone, mixture)
                if factor > 1:
                    size = factor * num_draws
                    drawn = self.from_mixture(part, size, rows[index], generator, stretch)
                    mixture = mixture_of_weighted(drawn, num_components, generator, start)
                    part = part.with_mixtures(everyone, mixture)
                drawn = self.from_mixture(part, num_draws, rows[index], generator, stretch)
                best = better_draws(best, index, Sampled(drawn, part))
        return best

    def _located(
        self, part: Refinement, pilot: Weighted, rows: Tensor, num_draws: int, generator: Generator
    ) -> Sampled:
        """Draws from mixtures around the modes; where their weights are poor, from mixtures that
        differential evolution has explored, with more steps where more draws are requested.
        """
        settings, everyone = self.settings, torch.arange(len(rows))
        modes = find_modes(self.target_of_each(rows), pilot.draws, pilot.log_weights)
        part = part.with_mixtures(everyone, modes.mixture)
        size = max(settings.min_mode_draws, num_draws // 4)
        drawn = self.from_mixture(part, size, rows, generator, True)
        mixture = mixture_of_weighted(drawn, 0, generator, modes.mixture)
        part = part.with_mixtures(everyone, mixture)
        best = Sampled(self.from_mixture(part, num_draws, rows, generator, True), part)
        index = _indices(is_poor(best.weighted.log_weights, settings.min_mode_efficiency))
        if len(index) == 0 or settings.max_evolution_steps == 0:
            return best
        num_steps = num_draws // settings.draws_per_evolution_step
        num_steps = max(settings.min_evolution_steps, min(settings.max_evolution_steps, num_steps))
        poor = Modes(modes.mixture.take(index), modes.repeated[index])
        target = self.target_of_each(rows[index])
        mixture = mixture_around_modes(target, poor, generator, num_steps)
        size = max(num_draws, settings.min_located_draws)
        mixture = self._adapted(mixture, rows[index], size, generator)
        explored = part.take(index).with_mixtures(torch.arange(len(index)), mixture)
        drawn = self.from_mixture(explored, num_draws, rows[index], generator, True)
        return better_draws(best, index, Sampled(drawn, explored))

    def target_of_each(self, rows: Tensor) -> Target:
        """The targets of some rows as a function of points ``(point, j * N, latent)``, for j points
        of each row.
        """

        def target(points: Tensor) -> Tensor:
            by_row = points.reshape(-1, len(rows), points.shape[-1])
            return self.target(by_row, rows).reshape(points.shape[:-1])

        return target

    def _adapted(
        self, mixture: StudentMixture, rows: Tensor, num_draws: int, generator: Generator
    ) -> StudentMixture:
        """The mixture fitted once more, to weighted draws of itself, of a wider copy and of a
        stretched copy: differential evolution rarely reaches the far end of a curved region.
        """
        spread = self.population(self.settings.num_population_draws, rows, generator).std(0)
        quarter = num_draws // 4
        sources = [
            (num_draws - 2 * quarter, mixture),
            (quarter, mixture.widened(self.settings.widening_factor)),
            (quarter, mixture.stretched(spread)),
        ]
        draws = torch.cat([x.draw(num, generator) for num, x in sources])
        weighted = self._weighted_by_mixture(draws, [(n, x.log_prob) for n, x in sources], rows)
        return mixture_of_weighted(weighted, 0, generator, mixture)

    def from_mixture(
        self,
        part: Refinement,
        num_draws: int,
        rows: Tensor,
        generator: Generator,
        stretch: bool = False,
    ) -> Weighted:
        r"""Weighted draws from the defensive mixture, with a fixed number of draws of each part.

        Args:
            part: Refinement of these individuals.
            num_draws: Draws per individual.
            rows: The individuals.
            generator: Source of randomness.
            stretch: Add a part from a stretched copy of the mixture, for mixtures around modes.
        """
        settings = self.settings
        num_guide = round(settings.guide_share * num_draws)
        num_stretched = round(settings.stretched_share * num_draws) if stretch else 0
        num_population = max(1, round(settings.population_share * num_draws))
        num_mixture = num_draws - num_guide - num_stretched - num_population
        size = max(num_population, settings.num_population_draws)
        population = self.population(size, rows, generator)
        sources = [(num_mixture, part.mixture), (num_guide, part.guide)]
        if num_stretched:
            sources.append((num_stretched, part.mixture.stretched(population.std(0))))
        draws = [x.draw(num, generator) for num, x in sources] + [population[:num_population]]
        terms: list[Source] = [(n, x.log_prob) for n, x in sources]
        terms.append((num_population, lambda x: self.log_population(x, rows)))
        return self._weighted_by_mixture(torch.cat(draws), terms, rows)

    def _weighted_by_mixture(self, draws: Tensor, terms: list[Source], rows: Tensor) -> Weighted:
        log_terms = [
            math.log(num / len(draws)) + log_prob(draws).nan_to_num(-math.inf, math.inf, -math.inf)
            for num, log_prob in terms
        ]
        return self._weighted(draws, torch.stack(log_terms).logsumexp(0), rows)


def better_draws(current: Sampled, rows: Tensor, new: Sampled) -> Sampled:
    """New draws of some individuals, with their refinement, where their weights are better."""
    before = comparable_ess(current.weighted.take(rows).log_weights)
    better = comparable_ess(new.weighted.log_weights) > before
    return current.replaced(rows[better], new.take(_indices(better)))


def _indices(mask: Tensor) -> Tensor:
    """Indices where a mask of one dimension is True."""
    return mask.nonzero()[:, 0]
