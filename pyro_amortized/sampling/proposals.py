r"""What importance sampling draws from and gives: proposals, weighted draws, refinements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from ..networks.conditional_flow import FlowDistribution
from ..runtime.isolation import seeded
from .student_mixture import StudentMixture

MAX_TOGETHER = 8_000


class Proposal(Protocol):
    """What draws come from first."""

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws ``(draw, row, latent)`` and their log density ``(draw, row)``."""
        ...


class FlowProposal:
    """The amortized posterior of every row as a proposal."""

    def __init__(self, law: FlowDistribution) -> None:
        self.law = law

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws and their log density."""
        law = self.law.take(rows)
        sizes = _sizes(num_draws, len(rows))
        with seeded(generator):
            draws = torch.cat([law.rsample(torch.Size([n])) for n in sizes])
        return draws, torch.cat([law.log_prob(x) for x in draws.split(sizes)])


def _sizes(num_draws: int, num: int) -> list[int]:
    """Draws of ``num`` individuals that go through the network together: what stays in the
    processor's cache is several times faster.
    """
    size = max(1, MAX_TOGETHER // num)
    return [min(size, num_draws - i) for i in range(0, num_draws, size)]


@dataclass(frozen=True, eq=False)
class Weighted:
    """Draws ``(draw, row, latent)``, their log proposal density and log weights ``(draw, row)``."""

    draws: Tensor
    log_proposal: Tensor
    log_weights: Tensor

    def take(self, rows: Tensor) -> "Weighted":
        """Some of the individuals."""
        return Weighted(self.draws[:, rows], self.log_proposal[:, rows], self.log_weights[:, rows])

    def put(self, rows: Tensor, other: "Weighted") -> None:
        """Replace some of the individuals, in place."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[:, rows] = theirs


@dataclass(frozen=True, eq=False)
class Refinement:
    """Which individuals draw from a mixture, shape ``(row,)``, from which, and where the guide
    lies; the mixtures of the others mean nothing.
    """

    refined: Tensor
    mixture: StudentMixture
    guide: StudentMixture

    def take(self, rows: Tensor) -> "Refinement":
        """Some of the individuals."""
        return Refinement(self.refined[rows], self.mixture.take(rows), self.guide.take(rows))

    @staticmethod
    def cat(parts: Sequence["Refinement"]) -> "Refinement":
        """All individuals of several parts."""
        return Refinement(
            torch.cat([p.refined for p in parts]),
            StudentMixture.cat([p.mixture for p in parts]),
            StudentMixture.cat([p.guide for p in parts]),
        )


class Sampled(NamedTuple):
    """Weighted draws, and what they come from."""

    weighted: Weighted
    refinement: Refinement
