r"""Missingness mechanisms, which remove recorded values from a cohort.

A mechanism is a callable ``(cohort, generator) -> Cohort``. It only removes: a value that was not
recorded before is not recorded afterwards. Except for :class:`BelowLimit` the mechanisms do not
depend on the values. The removed values are then missing at random, and the likelihood of the
recorded values needs no term for the mechanism.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import CohortError

Mechanism = Callable[[Cohort, Generator], Cohort]


def check_setting(holds: bool, found: str, expected: str) -> None:
    r"""Raise unless a setting is in its range.

    Args:
        holds: Whether it is.
        found: What was found, for the message.
        expected: What was expected, for the message.

    Raises:
        CohortError: It is not.
    """
    if not holds:
        raise CohortError(found, expected, "correct the setting.")


def _masked(cohort: Cohort, draw: Callable[[Tensor], Tensor]) -> Cohort:
    r"""Mask every series; all channels of a time have the same mask.

    Args:
        cohort: N individuals.
        draw: Maps the mask of the recorded times, shape ``(individual, time)``, to a mask that is
            True where a time stays recorded, same shape.
    """
    masks = {}
    for name, s in cohort.series.items():
        observed = s.observed
        mask = draw(s.present.cpu()).to(observed.device)
        masks[name] = mask if observed.dim() == 2 else mask.unsqueeze(-1).expand_as(observed)
    return cohort.with_observed(masks)


def _remove_at_random(present: Tensor, count: Tensor, generator: Generator) -> Tensor:
    """Mask that removes ``count``, shape ``(individual, 1)``, of the recorded times at random."""
    order = torch.rand(present.shape, generator=generator).masked_fill(~present, 2.0)
    return order.argsort(1).argsort(1) >= count


@dataclass(frozen=True)
class RandomMissing:
    r"""Values missing completely at random: of n recorded values, round(s n) are removed at random
    positions.

    The share s is drawn for every individual and series, uniformly between ``min_share`` and
    ``max_share``. A fraction ``complete`` of the individuals loses nothing. All channels of a time
    are removed together.

    Args:
        min_share: Smallest share of the recorded times that is removed.
        max_share: Largest share of the recorded times that is removed.
        complete: Fraction of the individuals from which nothing is removed.

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
        check_setting(
            0 <= self.min_share <= self.max_share <= 1 and 0 <= self.complete <= 1,
            f"Missing shares from {self.min_share} to {self.max_share}, {self.complete} complete.",
            "0 <= min_share <= max_share <= 1 and 0 <= complete <= 1.",
        )

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""

        def draw(present: Tensor) -> Tensor:
            num = len(present)
            width = self.max_share - self.min_share
            share = self.min_share + width * torch.rand(num, 1, generator=generator)
            share = share * (torch.rand(num, 1, generator=generator) >= self.complete)
            count = (share * present.sum(1, keepdim=True) + 0.5).floor()
            return _remove_at_random(present, count, generator)

        return _masked(cohort, draw)


@dataclass(frozen=True)
class NumberMissing:
    r"""A number of values is removed at random positions, drawn for every individual and series.

    The number is uniform between ``least`` and ``most``. If fewer values are recorded, all are
    removed. All channels of a time are removed together.

    Args:
        least: Smallest number of removed times.
        most: Largest number of removed times.

    Raises:
        CohortError: Not 0 <= least <= most.
    """

    least: int
    most: int

    def __post_init__(self) -> None:
        check_setting(
            0 <= self.least <= self.most,
            f"{self.least} to {self.most} values missing.",
            "0 <= least <= most.",
        )

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""

        def draw(present: Tensor) -> Tensor:
            size = (len(present), 1)
            count = torch.randint(self.least, self.most + 1, size, generator=generator)
            return _remove_at_random(present, count, generator)

        return _masked(cohort, draw)


@dataclass(frozen=True)
class BernoulliMissing:
    r"""Every value is removed independently of the others; so is every channel of a time.

    The probability is drawn for every individual and series, uniformly between ``least`` and
    ``most``.

    Args:
        least: Smallest probability that a value is removed.
        most: Largest probability that a value is removed. Default: ``least``.

    Raises:
        CohortError: Not 0 <= least <= most <= 1.
    """

    least: float
    most: float | None = None

    def __post_init__(self) -> None:
        most = self.least if self.most is None else self.most
        check_setting(
            0 <= self.least <= most <= 1,
            f"Probabilities of missing from {self.least} to {most}.",
            "0 <= least <= most <= 1.",
        )

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""
        most = self.least if self.most is None else self.most
        masks = {}
        for name, s in cohort.series.items():
            size = (len(cohort), *[1] * (s.observed.dim() - 1))
            probability = self.least + (most - self.least) * torch.rand(size, generator=generator)
            mask = torch.rand(s.observed.shape, generator=generator) >= probability
            masks[name] = mask.to(s.observed.device)
        return cohort.with_observed(masks)


@dataclass(frozen=True)
class ChannelMissing:
    r"""All values of a channel of an individual are removed.

    Of a series without channels, all values of the series are removed.

    Args:
        probability: Probability that a channel of an individual is removed.

    Raises:
        CohortError: Not between 0 and 1.
    """

    probability: float

    def __post_init__(self) -> None:
        check_setting(
            0 <= self.probability <= 1,
            f"Probability {self.probability} that a channel is missing.",
            "a probability.",
        )

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""
        masks = {}
        for name, s in cohort.series.items():
            size = (len(cohort), 1, *s.observed.shape[2:])
            mask = torch.rand(size, generator=generator) >= self.probability
            masks[name] = mask.to(s.observed.device).expand_as(s.observed)
        return cohort.with_observed(masks)


@dataclass(frozen=True)
class Gaps:
    r"""Consecutive times of each individual and series are removed.

    The length of the gap and its position are uniform.

    Args:
        longest: Largest number of times in the gap; the smallest is 0.

    Raises:
        CohortError: ``longest`` is negative.
    """

    longest: int

    def __post_init__(self) -> None:
        check_setting(self.longest >= 0, f"Gaps of up to {self.longest} times.", "0 or more.")

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""

        def draw(present: Tensor) -> Tensor:
            num, width = present.shape
            most = min(self.longest, width)
            length = torch.randint(0, most + 1, (num, 1), generator=generator)
            start = (torch.rand(num, 1, generator=generator) * (width - length + 1)).floor()
            place = torch.arange(width)
            return (place < start) | (place >= start + length)

        return _masked(cohort, draw)


@dataclass(frozen=True)
class Dropout:
    r"""Individuals leave the study (monotone missingness): only the first n recorded times remain.

    The number n is uniform between ``least`` and the number of recorded times of the individual.

    Args:
        least: Smallest n.

    Raises:
        CohortError: ``least`` is negative.
    """

    least: int = 1

    def __post_init__(self) -> None:
        check_setting(self.least >= 0, f"At least {self.least} times before dropout.", "0 or more.")

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""

        def draw(present: Tensor) -> Tensor:
            most = present.sum(1, keepdim=True)
            span = (most - self.least + 1).clamp(min=1)
            count = self.least + (torch.rand(len(present), 1, generator=generator) * span).floor()
            return present.cumsum(1) <= count

        return _masked(cohort, draw)


@dataclass(frozen=True)
class BelowLimit:
    r"""Values below a limit are removed. They are **not missing at random**.

    A model that ignores the removed values gives biased estimates. Use this mechanism only with a
    model that describes the removal: with an observed site ``<name>_recorded``, or with a censored
    likelihood.

    Args:
        limit: The limit, in the unit of the data.
        series: Names of the series to which the mechanism is applied. Default: all.
    """

    limit: float
    series: tuple[str, ...] | None = None

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""
        names = cohort.series if self.series is None else self.series
        return cohort.with_observed({name: cohort[name].values >= self.limit for name in names})


@dataclass(frozen=True)
class PatternsOf:
    r"""The patterns of missing values of another cohort, those of an individual drawn at random.

    All series of an individual get the masks of the same individual of the other cohort.

    Args:
        cohort: The cohort with the patterns. Its series have the columns of the series to which the
            mechanism is applied.

    Raises:
        CohortError: When the mechanism is called: the columns differ.
    """

    cohort: Cohort

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with fewer recorded values."""
        rows = torch.randint(len(self.cohort), (len(cohort),), generator=generator)
        masks = {}
        for name, s in cohort.series.items():
            pattern = self.cohort[name].observed
            if pattern.shape[1:] != s.observed.shape[1:]:
                raise CohortError(
                    f"The patterns of {name!r} have shape {tuple(pattern.shape[1:])}.",
                    f"{tuple(s.observed.shape[1:])}, (time[, channel]) of the design.",
                    "use a design with the columns of that cohort.",
                )
            masks[name] = pattern[rows.to(pattern.device)].to(s.observed.device)
        return cohort.with_observed(masks)


def nothing_missing(cohort: Cohort, generator: Generator) -> Cohort:
    """The mechanism that removes nothing."""
    return cohort
