r"""Proposals: what the first draws of every individual come from, and their log density."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from ..networks.conditional_flow import FlowDistribution
from ..runtime.isolation import seeded


@dataclass(frozen=True)
class FlowProposalSettings:
    """How draws of the flow are split.

    Args:
        max_rows: Draws times individuals that go through the network in one call. More of them do
            not fit into the cache of a processor and take several times as long.
    """

    max_rows: int = 8_000


FLOW = FlowProposalSettings()


class Proposal(Protocol):
    """The distribution that the first draws of every individual come from."""

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws ``(draw, row, latent)`` and their log density ``(draw, row)``."""
        ...


class FlowProposal:
    r"""The amortized posterior of every row as a proposal.

    Args:
        distribution: The conditional flow, one row per individual.
        settings: How draws are split.
    """

    def __init__(
        self, distribution: FlowDistribution, settings: FlowProposalSettings = FLOW
    ) -> None:
        self.distribution, self.settings = distribution, settings

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws ``(draw, row, latent)`` and their log density ``(draw, row)``."""
        distribution = self.distribution.take(rows)
        sizes = self._sizes(num_draws, len(rows))
        with seeded(generator):
            parts = [distribution.sample_with_log_prob(torch.Size([n])) for n in sizes]
        draws, log_prob = (torch.cat(x) for x in zip(*parts, strict=True))
        return draws, log_prob

    def _sizes(self, num_draws: int, num_rows: int) -> list[int]:
        """Numbers of draws per call of the network; they sum to ``num_draws``."""
        size = max(1, self.settings.max_rows // num_rows)
        return [min(size, num_draws - i) for i in range(0, num_draws, size)]


class PopulationProposal:
    r"""The population as a proposal, where there is no guide.

    Args:
        population: Draws from the population, of given number and rows.
        log_population: Log density of the population at draws of the given rows.
    """

    def __init__(
        self,
        population: Callable[[int, Tensor, Generator], Tensor],
        log_population: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        self.population, self.log_population = population, log_population

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws ``(draw, row, latent)`` and their log density ``(draw, row)``."""
        draws = self.population(num_draws, rows, generator)
        return draws, self.log_population(draws, rows)
