r"""Weighted draws, and the mixtures that individuals are sampled from.

Weighted draws are draws with log weights, log target minus log proposal. A refinement says which
individuals are sampled from a mixture, and from which mixture. Both are values: :meth:`replaced`
gives a new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .sampling_stage import Stage
from .student_mixture import StudentMixture


@dataclass(frozen=True, eq=False)
class Weighted:
    r"""Weighted draws of several individuals.

    Args:
        draws: Unconstrained draws, shape ``(draw, row, latent)``.
        log_proposal: Log density that they were drawn from, shape ``(draw, row)``.
        log_weights: Log target minus ``log_proposal``, shape ``(draw, row)``; -inf where it is not
            finite.
    """

    draws: Tensor
    log_proposal: Tensor
    log_weights: Tensor

    def take(self, rows: Tensor) -> "Weighted":
        """The draws of some individuals; ``rows`` are indices or a boolean mask."""
        return Weighted(self.draws[:, rows], self.log_proposal[:, rows], self.log_weights[:, rows])

    def replaced(self, rows: Tensor, other: "Weighted") -> "Weighted":
        """New weighted draws, in which those of some individuals are taken from ``other``."""
        return Weighted(
            *(
                _replaced(old, new, (slice(None), rows))
                for old, new in zip(vars(self).values(), vars(other).values(), strict=True)
            )
        )

    @staticmethod
    def without_weight(num_draws: int, num_rows: int, like: "Weighted") -> "Weighted":
        """Draws at zero with a weight of zero, to be replaced; dtype and size of ``like``."""
        shape = (num_draws, num_rows)
        impossible = like.log_weights.new_full(shape, -torch.inf)
        draws = like.draws.new_zeros(*shape, like.draws.shape[-1])
        return Weighted(draws, like.log_proposal.new_zeros(shape), impossible)

    @staticmethod
    def cat(parts: Sequence["Weighted"]) -> "Weighted":
        """The draws of all individuals of several parts."""
        fields = zip(*(vars(part).values() for part in parts), strict=True)
        return Weighted(*(torch.cat(tensors, 1) for tensors in fields))


@dataclass(frozen=True, eq=False)
class Refinement:
    r"""Which individuals are sampled from a mixture, and from which.

    Args:
        stage: The :class:`~pyro_amortized.sampling.sampling_stage.Stage` that each individual is
            sampled at, shape ``(row,)``. At the first one its mixtures have no meaning.
        mixture: The mixture that was fitted to each individual.
        guide: A mixture in the shape of the guide, which stands in for it in the defensive mixture.
        num_modes: Number of modes of each individual, shape ``(row,)``; 0 where they were not
            searched for.
    """

    stage: Tensor
    mixture: StudentMixture
    guide: StudentMixture
    num_modes: Tensor

    @property
    def refined(self) -> Tensor:
        """Whether an individual is sampled from its mixture, shape ``(row,)``."""
        return self.stage > Stage.FIRST

    def at(self, stage: Stage) -> "Refinement":
        """The same refinement, with every individual at a stage."""
        return replace(self, stage=torch.full_like(self.stage, stage))

    def take(self, rows: Tensor) -> "Refinement":
        """The refinement of some individuals."""
        mixtures = (self.mixture.take(rows), self.guide.take(rows))
        return Refinement(self.stage[rows], *mixtures, self.num_modes[rows])

    def with_mixtures(self, rows: Tensor, mixture: StudentMixture) -> "Refinement":
        """A new refinement, in which the mixtures of some individuals are replaced."""
        return replace(self, mixture=self.mixture.replaced(rows, mixture))

    def with_guides(self, rows: Tensor, guide: StudentMixture) -> "Refinement":
        """A new refinement, in which the shapes of the guide of some individuals are replaced."""
        return replace(self, guide=self.guide.replaced(rows, guide))

    def replaced(self, rows: Tensor, other: "Refinement") -> "Refinement":
        """A new refinement, in which that of some individuals is taken from ``other``."""
        return Refinement(
            _replaced(self.stage, other.stage, rows),
            self.mixture.replaced(rows, other.mixture),
            self.guide.replaced(rows, other.guide),
            _replaced(self.num_modes, other.num_modes, rows),
        )

    @staticmethod
    def none(like: Weighted, num_components: int, num_guide_components: int) -> "Refinement":
        """No individual is refined; the mixtures have room for so many components."""
        draws = like.draws
        num_rows, num_latent = draws.shape[1:]
        mixture, guide = (
            StudentMixture.unused(num_rows, num, num_latent, draws)
            for num in (num_components, num_guide_components)
        )
        first = torch.full((num_rows,), Stage.FIRST, dtype=torch.long)
        return Refinement(first, mixture, guide, torch.zeros(num_rows, dtype=torch.long))

    @staticmethod
    def cat(parts: Sequence["Refinement"]) -> "Refinement":
        """The refinement of all individuals of several parts."""
        return Refinement(
            torch.cat([p.stage for p in parts]),
            StudentMixture.cat([p.mixture for p in parts]),
            StudentMixture.cat([p.guide for p in parts]),
            torch.cat([p.num_modes for p in parts]),
        )


class Sampled(NamedTuple):
    """Weighted draws of several individuals, and the refinement that they were made with."""

    weighted: Weighted
    refinement: Refinement

    def replaced(self, rows: Tensor, other: "Sampled") -> "Sampled":
        """New draws, in which those of some individuals are taken from ``other``."""
        return Sampled(
            self.weighted.replaced(rows, other.weighted),
            self.refinement.replaced(rows, other.refinement),
        )

    def take(self, rows: Tensor) -> "Sampled":
        """The draws and the refinement of some individuals."""
        return Sampled(self.weighted.take(rows), self.refinement.take(rows))


def _replaced(old: Tensor, new: Tensor, index: Tensor | tuple[slice, Tensor]) -> Tensor:
    """A copy of ``old`` with ``new`` at an index."""
    result = old.clone()
    result[index] = new
    return result
