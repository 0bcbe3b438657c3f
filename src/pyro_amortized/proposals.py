r"""What importance sampling draws from and gives: proposals, weighted draws, refinements."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from .flows import FlowDistribution
from .isolation import seeded
from .mixture import StudentMixture


class Proposal(Protocol):
    """What draws come from first."""

    has_density: bool

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws ``(draw, row, latent)`` and their log density ``(draw, row)``."""
        ...

    def log_prob(self, draws: Tensor, rows: Tensor) -> Tensor:
        """Log density at any draws, where ``has_density`` is True."""
        ...


class FlowProposal:
    """The amortized posterior of every row as a proposal."""

    has_density = True

    def __init__(self, law: FlowDistribution) -> None:
        self.law = law

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws and their log density."""
        law = self.law.take(rows)
        with seeded(generator):
            draws = law.rsample(torch.Size([num_draws]))
        return draws, law.log_prob(draws)

    def log_prob(self, draws: Tensor, rows: Tensor) -> Tensor:
        """Log density at any draws."""
        return self.law.take(rows).log_prob(draws)


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
    """Which individuals draw from a mixture, shape ``(row,)``, and from which; the mixtures of the
    others mean nothing.
    """

    refined: Tensor
    mixture: StudentMixture

    def take(self, rows: Tensor) -> "Refinement":
        """Some of the individuals."""
        return Refinement(self.refined[rows], self.mixture.take(rows))


class Sampled(NamedTuple):
    """Weighted draws, and what they come from."""

    weighted: Weighted
    refinement: Refinement
