r"""Weighted draws of many small targets, from a proposal or from mixtures.

The module has no access to the cohort or the model. Targets, proposals and the population are
functions of draws ``(draw, row, latent)`` and of the rows (individuals) that the draws belong to.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..numerics.newton_steps import LogTarget
from .importance_weights import finite_or_zero_weight
from .proposals import Proposal
from .refinement_settings import REFINEMENT, RefinementSettings
from .weighted_draws import Refinement, Weighted

LogDensity = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, Tensor, Generator], Tensor]
MixtureTerm = tuple[int, Callable[[Tensor], Tensor]]


@dataclass(frozen=True, eq=False)
class Sampler:
    r"""A batch of targets, and where their draws may come from.

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

    def from_proposal(self, num_draws: int, rows: Tensor, generator: Generator) -> Weighted:
        """Weighted draws of some individuals from the guide."""
        draws, log_proposal = self.proposal.draw(num_draws, rows, generator)
        return self._weighted(draws, log_proposal, rows)

    def from_mixture(
        self,
        part: Refinement,
        num_draws: int,
        rows: Tensor,
        generator: Generator,
        *,
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
        terms: list[MixtureTerm] = [(n, x.log_prob) for n, x in sources]
        terms.append((num_population, lambda x: self.log_population(x, rows)))
        return self.weighted_by_mixture(torch.cat(draws), terms, rows)

    def weighted_by_mixture(
        self, draws: Tensor, terms: list[MixtureTerm], rows: Tensor
    ) -> Weighted:
        """Weighted draws of several sources together, with the number of draws of each and its log
        density.
        """
        log_terms = [
            math.log(num / len(draws)) + log_prob(draws).nan_to_num(-math.inf, math.inf, -math.inf)
            for num, log_prob in terms
        ]
        return self._weighted(draws, torch.stack(log_terms).logsumexp(0), rows)

    def target_of_each(self, rows: Tensor) -> LogTarget:
        """The targets of some rows as a function of points ``(point, j * N, latent)``, for j points
        of each row.
        """

        def target(points: Tensor) -> Tensor:
            by_row = points.reshape(-1, len(rows), points.shape[-1])
            return self.target(by_row, rows).reshape(points.shape[:-1])

        return target

    def _weighted(self, draws: Tensor, log_proposal: Tensor, rows: Tensor) -> Weighted:
        log_weights = finite_or_zero_weight(self.target(draws, rows) - log_proposal)
        return Weighted(draws, log_proposal, log_weights)
