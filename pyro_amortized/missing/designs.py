r"""Designs: times, doses, covariates and missing values of the individuals that are simulated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from ..cohort import Cohort, Design, Series, series_with_indicator
from ..errors import CohortError
from ..runtime.arguments import check_is
from .mechanisms import Mechanism, RandomMissing, nothing_missing

# Share of the simulated individuals from which nothing is removed, so that the training data
# contain individuals that are as complete as those of the cohort.
COMPLETE_SHARE = 0.25


@runtime_checkable
class Remaskable(Protocol):
    r"""A design that separates what is simulated from what is then missing.

    Training simulates individuals of :meth:`complete` once, and applies the mechanism ``missing``
    to the simulated cohort anew in every pass over it.
    """

    @property
    def missing(self) -> Mechanism:
        """The mechanism; an attribute is sufficient."""
        ...

    def __call__(self, num_individuals: int, generator: Generator) -> Cohort:
        """A cohort of placeholders to which the mechanism was applied."""
        ...

    def complete(self, num_individuals: int, generator: Generator) -> Cohort:
        """A cohort of placeholders to which the mechanism was not applied."""
        ...


@dataclass(frozen=True)
class Resample:
    r"""The default design: individuals of a cohort, drawn with replacement.

    A drawn individual keeps its times, doses, covariates and missing values.

    Args:
        cohort: The cohort.
        missing: The mechanism that removes further values. Default: nothing is removed from a
            quarter of the individuals, and up to 60 % of the values of the others.
            :func:`default_design` removes nothing if the model describes what is recorded (a series
            ``<name>_recorded``).
    """

    cohort: Cohort
    missing: Mechanism = field(default_factory=lambda: RandomMissing(complete=COMPLETE_SHARE))

    def __post_init__(self) -> None:
        check_is("cohort", self.cohort, Cohort, "pass the cohort to resample.", CohortError)

    def __call__(self, num_individuals: int, generator: Generator) -> Cohort:
        """A design of ``num_individuals`` individuals; its values are placeholders."""
        return self.missing(self.complete(num_individuals, generator), generator)

    def complete(self, num_individuals: int, generator: Generator) -> Cohort:
        """The same before the mechanism removes values."""
        index = torch.randint(len(self.cohort), (num_individuals,), generator=generator)
        return self.cohort[index]


@dataclass(frozen=True)
class Schedule:
    r"""The same times for every individual; no data are needed.

    Args:
        times: Times of each series, increasing, in the unit of the data.
        missing: The mechanism that removes values. Default: nothing is removed.
        channels: Number of channels of the series that have channels.

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
            times = torch.as_tensor(row, dtype=torch.float64)
            if times.dim() != 1 or not len(times) or bool((times.diff() <= 0).any()):
                raise CohortError(
                    f"The schedule of {name!r} is {times.tolist()}.",
                    "one or more increasing times.",
                    "sort the times and remove repeated ones.",
                )

    def __call__(self, num_individuals: int, generator: Generator) -> Cohort:
        """A design of ``num_individuals`` individuals; its values are placeholders."""
        return self.missing(self.complete(num_individuals, generator), generator)

    def complete(self, num_individuals: int, generator: Generator) -> Cohort:
        """The same before the mechanism removes values."""
        series = {}
        for name, row in self.times.items():
            times = torch.as_tensor(row, dtype=torch.float64).expand(num_individuals, -1)
            channels = (self.channels[name],) if name in self.channels else ()
            series[name] = Series(times, torch.ones(*times.shape, *channels, dtype=times.dtype))
        return Cohort(series)


@dataclass(frozen=True)
class FixedMissingness:
    r"""A design of the user that does not separate what is simulated from what is then missing.

    Args:
        design: The design. Its missing values are those of the training data.
        missing: The mechanism that is applied in training; by default it removes nothing.
    """

    design: Design
    missing: Mechanism = nothing_missing

    def __call__(self, num_individuals: int, generator: Generator) -> Cohort:
        """A design of ``num_individuals`` individuals; its values are placeholders."""
        return self.design(num_individuals, generator)

    def complete(self, num_individuals: int, generator: Generator) -> Cohort:
        """The same, because the design contains its missing values."""
        return self.design(num_individuals, generator)


def default_design(cohort: Cohort) -> Resample:
    r"""The design that is used where the user passes a cohort.

    Args:
        cohort: The data.

    Returns:
        :class:`Resample` of the cohort. It removes values unless the cohort has a recording
        indicator, because the model then describes what is recorded.
    """
    return Resample(cohort, nothing_missing) if series_with_indicator(cohort) else Resample(cohort)


def as_design(data: Cohort | Design) -> Remaskable:
    r"""The design of data or of a design that need not be :class:`Remaskable`.

    Args:
        data: A cohort, which gives :func:`default_design`, or a design.
    """
    if isinstance(data, Cohort):
        return default_design(data)
    return data if isinstance(data, Remaskable) else FixedMissingness(data)
