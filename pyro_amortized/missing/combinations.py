r"""Mechanisms made of mechanisms: one after another, by lot, for some series."""

from dataclasses import dataclass

import torch
from torch import Generator

from ..cohort import Cohort, end_to_end
from .mechanisms import Mechanism, check_setting


@dataclass(frozen=True)
class AllOf:
    r"""Mechanisms one after another.

    Args:
        mechanisms: Two or more.
    """

    mechanisms: tuple[Mechanism, ...]

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with less recorded."""
        for mechanism in self.mechanisms:
            cohort = mechanism(cohort, generator)
        return cohort


@dataclass(frozen=True)
class OneOf:
    r"""For each individual one mechanism, by lot.

    Args:
        mechanisms: Two or more.
        weights: Their probabilities up to a factor. Default: equal.

    Raises:
        CohortError: Weights and mechanisms differ in number, or a weight is negative.
    """

    mechanisms: tuple[Mechanism, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        weights = self.weights or (1.0,) * len(self.mechanisms)
        check_setting(
            len(weights) == len(self.mechanisms) > 0 and min(weights) >= 0 and sum(weights) > 0,
            f"{len(self.mechanisms)} mechanisms with weights {weights}.",
            "one weight of 0 or more for each, not all zero.",
        )

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with less recorded."""
        weights = torch.tensor(self.weights or (1.0,) * len(self.mechanisms))
        lot = torch.multinomial(weights, len(cohort), replacement=True, generator=generator)
        parts, rows = [], []
        for k, mechanism in enumerate(self.mechanisms):
            chosen = (lot == k).nonzero()[:, 0]
            if len(chosen):
                parts.append(mechanism(cohort[chosen], generator))
                rows.append(chosen)
        return end_to_end(parts)[torch.cat(rows).argsort()]


@dataclass(frozen=True)
class OnlySeries:
    r"""A mechanism for some series; the others stay as they are.

    Args:
        series: Their names.
        mechanism: What happens to them.
    """

    series: tuple[str, ...]
    mechanism: Mechanism

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with less recorded."""
        less = self.mechanism(cohort, generator)
        return cohort.with_observed({name: less[name].observed for name in self.series})
