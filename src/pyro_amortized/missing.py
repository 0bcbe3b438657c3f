r"""Missingness: distributions over what is recorded, and designs that draw from them.

A mechanism is a callable ``(cohort, generator) -> cohort with less recorded``; a design
(:data:`~pyro_amortized.cohort.Design`) is a callable ``(num_individuals, generator) -> Cohort``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from .cohort import Cohort
from .errors import CohortError

Mechanism = Callable[[Cohort, Generator], Cohort]


@runtime_checkable
class Remaskable(Protocol):
    r"""A design that says apart what is simulated and what then goes missing.

    Training simulates from ``complete`` once and draws fresh missingness on every pass.
    """

    missing: Mechanism

    def __call__(self, num_individuals: int, generator: Generator) -> Cohort:
        """A design with its missingness."""
        ...

    def complete(self, num_individuals: int, generator: Generator) -> Cohort:
        """The same before anything extra goes missing."""
        ...


@dataclass(frozen=True)
class RandomMissing:
    r"""Values missing completely at random: of n recorded values, round(s n) go, at random
    positions.

    The share s is uniform between ``min_share`` and ``max_share``, drawn for every individual and
    series; a fraction ``complete`` of the individuals loses nothing. Channels of one time go
    together.

    Args:
        min_share: Smallest share of the recorded times that go missing.
        max_share: Largest share.
        complete: Fraction of individuals that stay as they are.

    Raises:
        CohortError: Not 0 <= min_share <= max_share <= 1 or not 0 <= complete <= 1.

    Example:
        >>> from pyro_amortized.datasets import theophylline
        >>> half = RandomMissing(0.5, 0.5)(theophylline(), torch.Generator().manual_seed(1))
        >>> half["concentration"].observed.sum(1).unique()
        tensor([5])
    """

    min_share: float = 0.0
    max_share: float = 0.6
    complete: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.min_share <= self.max_share <= 1 and 0 <= self.complete <= 1):
            raise CohortError(
                f"Missing shares from {self.min_share} to {self.max_share}, {self.complete} "
                "complete.",
                "0 <= min_share <= max_share <= 1 and 0 <= complete <= 1.",
                "correct the shares.",
            )

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with less recorded."""
        return cohort.with_observed(
            {name: self._mask(s.observed, generator) for name, s in cohort.series.items()}
        )

    def _mask(self, observed: Tensor, generator: Generator) -> Tensor:
        present = observed if observed.dim() == 2 else observed.any(-1)
        num, width = present.shape
        share = self.min_share + (self.max_share - self.min_share) * torch.rand(
            num, 1, generator=generator
        )
        share = share * (torch.rand(num, 1, generator=generator) >= self.complete)
        missing = (share * present.sum(1, keepdim=True).cpu() + 0.5).floor()
        order = torch.rand(num, width, generator=generator).masked_fill(~present.cpu(), 2.0)
        rank = order.argsort(1).argsort(1)
        mask = (rank >= missing).to(observed.device)
        return mask if observed.dim() == 2 else mask.unsqueeze(-1).expand_as(observed)


@dataclass(frozen=True)
class Resample:
    r"""The default design: individuals of a cohort (times, doses, covariates), drawn with
    replacement.

    Args:
        cohort: Where the individuals come from.
        missing: What goes missing in addition to what the individual already misses.
    """

    cohort: Cohort
    missing: Mechanism = field(default_factory=lambda: RandomMissing(complete=0.25))

    def __call__(self, num_individuals: int, generator: Generator) -> Cohort:
        """A design of ``num_individuals`` individuals; its values are placeholders."""
        return self.missing(self.complete(num_individuals, generator), generator)

    def complete(self, num_individuals: int, generator: Generator) -> Cohort:
        """The same before anything extra goes missing."""
        index = torch.randint(len(self.cohort), (num_individuals,), generator=generator)
        return self.cohort[index]
