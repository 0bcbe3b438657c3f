r"""Designs: when, under which doses and covariates individuals are simulated, and what is then
recorded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from ..cohort import Cohort, Design, Series, series_with_indicator
from ..errors import CohortError
from ..runtime.arguments import check_is
from .mechanisms import Mechanism, RandomMissing, nothing_missing


@runtime_checkable
class Remaskable(Protocol):
    r"""A design that says apart what is simulated and what then goes missing.

    Training simulates from ``complete`` once and draws fresh missingness on every pass; the
    mechanism sees the simulated values.
    """

    missing: Mechanism

    def __call__(self, num_individuals: int, generator: Generator) -> Cohort:
        """A design with its missingness."""
        ...

    def complete(self, num_individuals: int, generator: Generator) -> Cohort:
        """The same before anything extra goes missing."""
        ...


@dataclass(frozen=True)
class Resample:
    r"""The default design: individuals of a cohort (times, doses, covariates), drawn with
    replacement.

    Args:
        cohort: Where the individuals come from.
        missing: What goes missing in addition to what the individual already misses. Default: a
            quarter of the individuals keeps everything, the others lose up to 60 %; nothing where
            the model itself says what is recorded (a series ``<name>_recorded``).
    """

    cohort: Cohort
    missing: Mechanism = field(default_factory=lambda: RandomMissing(complete=0.25))

    def __post_init__(self) -> None:
        check_is("cohort", self.cohort, Cohort, "pass the cohort to resample.", CohortError)

    def __call__(self, num_individuals: int, generator: Generator) -> Cohort:
        """A design of ``num_individuals`` individuals; its values are placeholders."""
        return self.missing(self.complete(num_individuals, generator), generator)

    def complete(self, num_individuals: int, generator: Generator) -> Cohort:
        """The same before anything extra goes missing."""
        index = torch.randint(len(self.cohort), (num_individuals,), generator=generator)
        return self.cohort[index]


@dataclass(frozen=True)
class Schedule:
    r"""The same times for every individual, without data to resample.

    Args:
        times: Of each series, increasing, in the unit of the data.
        missing: What goes missing. Default: nothing.
        channels: Number of channels of series that have more than one.

    Raises:
        CohortError: A series has no times, or they do not increase.

    Example:
        >>> from pyro_amortized.missing import NumberMissing
        >>> design = Schedule({"y": [0.0, 5.0, 10.0]}, NumberMissing(0, 2))
        >>> design(4, torch.Generator().manual_seed(0))["y"].observed.sum(1)
        tensor([1, 3, 1, 3])
    """

    times: Mapping[str, Sequence[float] | Tensor]
    missing: Mechanism = nothing_missing
    channels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, row in self.times.items():
            found = torch.as_tensor(row, dtype=torch.float64)
            if found.dim() != 1 or not len(found) or bool((found.diff() <= 0).any()):
                raise CohortError(
                    f"The schedule of {name!r} is {found.tolist()}.",
                    "one or more increasing times.",
                    "sort the times and leave out repetitions.",
                )

    def __call__(self, num_individuals: int, generator: Generator) -> Cohort:
        """A design of ``num_individuals`` individuals; its values are placeholders."""
        return self.missing(self.complete(num_individuals, generator), generator)

    def complete(self, num_individuals: int, generator: Generator) -> Cohort:
        """The same before anything goes missing."""
        series = {}
        for name, row in self.times.items():
            times = torch.as_tensor(row, dtype=torch.float64).expand(num_individuals, -1)
            channels = (self.channels[name],) if name in self.channels else ()
            series[name] = Series(times, torch.ones(*times.shape, *channels, dtype=times.dtype))
        return Cohort(series)


def default_design(cohort: Cohort) -> Design:
    """Individuals of a cohort, with extra missingness unless the model says what is recorded."""
    return Resample(cohort, nothing_missing) if series_with_indicator(cohort) else Resample(cohort)
