r"""Combinations of mechanisms: one after another, one at random, or for some series only."""

from dataclasses import dataclass

import torch
from torch import Generator

from ..cohort import Cohort, end_to_end
from .mechanisms import Mechanism, check_setting


@dataclass(frozen=True)
class AllOf:
    r"""Mechanisms one after another: what any of them removes is missing.

    Args:
        mechanisms: Two or more mechanisms.
    """

    mechanisms: tuple[Mechanism, ...]

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""
        for mechanism in self.mechanisms:
            cohort = mechanism(cohort, generator)
        return cohort


@dataclass(frozen=True)
class OneOf:
    r"""One mechanism for each individual, drawn at random.

    Args:
        mechanisms: Two or more mechanisms.
        weights: Their probabilities up to a common factor. Default: equal.

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
            "one weight of 0 or more for each mechanism, not all of them zero.",
        )

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""
        weights = torch.tensor(self.weights or (1.0,) * len(self.mechanisms))
        choice = torch.multinomial(weights, len(cohort), replacement=True, generator=generator)
        parts, rows = [], []
        for k, mechanism in enumerate(self.mechanisms):
            selected = (choice == k).nonzero()[:, 0]
            if len(selected):
                parts.append(mechanism(cohort[selected], generator))
                rows.append(selected)
        return end_to_end(parts)[torch.cat(rows).argsort()]


@dataclass(frozen=True)
class OnlySeries:
    r"""A mechanism for some series; the other series are not changed.

    Args:
        series: Names of the series.
        mechanism: The mechanism that is applied to them.
    """

    series: tuple[str, ...]
    mechanism: Mechanism

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""
        masked = self.mechanism(cohort, generator)
        return cohort.with_observed({name: masked[name].observed for name in self.series})
