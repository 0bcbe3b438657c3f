r"""Proposals: what the first draws of every individual come from, and their log density."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

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


class RowPosterior(Protocol):
    """The amortized posterior of some rows."""

    def take(self, rows: Tensor) -> "RowPosterior":
        """That of some of these rows."""
        ...

    def sample_with_log_prob(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Draws ``(*sample_shape, row, latent)`` and their log density."""
        ...


class FlowProposal:
    r"""The amortized posterior of every row as a proposal.

    It is computed for rows that are drawn, and kept until others are: the Newton steps of a
    sharpened guide take longer than the draws, and most rows of a fit are soon drawn from mixtures.

    Args:
        posterior_of: The conditional flow of some rows.
        settings: How draws are split.
    """

    def __init__(
        self, posterior_of: Callable[[Tensor], RowPosterior], settings: FlowProposalSettings = FLOW
    ) -> None:
        self.posterior_of, self.settings = posterior_of, settings
        self._kept: tuple[Tensor, RowPosterior] | None = None

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws ``(draw, row, latent)`` and their log density ``(draw, row)``."""
        distribution = self._posterior(rows)
        sizes = self._sizes(num_draws, len(rows))
        with seeded(generator):
            parts = [distribution.sample_with_log_prob(torch.Size([n])) for n in sizes]
        draws, log_prob = (torch.cat(x) for x in zip(*parts, strict=True))
        return draws, log_prob

    def _posterior(self, rows: Tensor) -> RowPosterior:
        if self._kept is None or not bool(torch.isin(rows, self._kept[0]).all()):
            self._kept = (rows, self.posterior_of(rows))
        kept, posterior = self._kept
        order = kept.argsort()
        return posterior.take(order[torch.searchsorted(kept[order], rows)])

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
