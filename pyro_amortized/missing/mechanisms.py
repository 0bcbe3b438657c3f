r"""Missingness mechanisms: a cohort -> the cohort with less recorded.

A mechanism is a callable ``(cohort, generator) -> Cohort``. What is recorded already stays the
upper bound. Except for :class:`BelowLimit` they do not look at values, so that what they leave out
may be left out of the likelihood (missing at random).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import CohortError

Mechanism = Callable[[Cohort, Generator], Cohort]


def check_setting(holds: bool, found: str, expected: str) -> None:
    """Raise a ``CohortError`` unless a setting holds."""
    if not holds:
        raise CohortError(found, expected, "correct the setting.")


def _masked(cohort: Cohort, draw: Callable[[Tensor], Tensor]) -> Cohort:
    """Apply a draw of kept places, ``(individual, time) -> same``, to every series."""
    masks = {}
    for name, s in cohort.series.items():
        observed = s.observed
        kept = draw(s.present.cpu()).to(observed.device)
        masks[name] = kept if observed.dim() == 2 else kept.unsqueeze(-1).expand_as(observed)
    return cohort.with_observed(masks)


def _without(there: Tensor, count: Tensor, generator: Generator) -> Tensor:
    """Places kept when ``count`` (individual, 1) of those there go, at random positions."""
    order = torch.rand(there.shape, generator=generator).masked_fill(~there, 2.0)
    return order.argsort(1).argsort(1) >= count


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
        check_setting(
            0 <= self.min_share <= self.max_share <= 1 and 0 <= self.complete <= 1,
            f"Missing shares from {self.min_share} to {self.max_share}, {self.complete} complete.",
            "0 <= min_share <= max_share <= 1 and 0 <= complete <= 1.",
        )

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with less recorded."""

        def draw(there: Tensor) -> Tensor:
            num = len(there)
            width = self.max_share - self.min_share
            share = self.min_share + width * torch.rand(num, 1, generator=generator)
            share = share * (torch.rand(num, 1, generator=generator) >= self.complete)
            count = (share * there.sum(1, keepdim=True) + 0.5).floor()
            return _without(there, count, generator)

        return _masked(cohort, draw)


@dataclass(frozen=True)
class NumberMissing:
    r"""A uniform number of values goes missing, at random positions, per individual and series.

    Channels of one time go together; of fewer recorded values than the number drawn, all go.

    Args:
        least: Smallest number.
        most: Largest number.

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
        """The cohort with less recorded."""

        def draw(there: Tensor) -> Tensor:
            size = (len(there), 1)
            count = torch.randint(self.least, self.most + 1, size, generator=generator)
            return _without(there, count, generator)

        return _masked(cohort, draw)


@dataclass(frozen=True)
class BernoulliMissing:
    r"""Every value goes missing on its own; with channels, every channel of every time.

    Args:
        least: Smallest probability; each individual and series draws its own, uniformly.
        most: Largest probability. Default: ``least``.

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
        """The cohort with less recorded."""
        most = self.least if self.most is None else self.most
        masks = {}
        for name, s in cohort.series.items():
            size = (len(cohort), *[1] * (s.observed.dim() - 1))
            probability = self.least + (most - self.least) * torch.rand(size, generator=generator)
            kept = torch.rand(s.observed.shape, generator=generator) >= probability
            masks[name] = kept.to(s.observed.device)
        return cohort.with_observed(masks)


@dataclass(frozen=True)
class ChannelMissing:
    r"""Whole channels of an individual were not measured; of a series with one channel, the series.

    Args:
        probability: Of each channel.

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
        """The cohort with less recorded."""
        masks = {}
        for name, s in cohort.series.items():
            size = (len(cohort), 1, *s.observed.shape[2:])
            kept = torch.rand(size, generator=generator) >= self.probability
            masks[name] = kept.to(s.observed.device).expand_as(s.observed)
        return cohort.with_observed(masks)


@dataclass(frozen=True)
class Gaps:
    r"""A run of neighbouring times goes missing: uniform in length and in place.

    Args:
        longest: Largest number of times in the gap; the smallest is 0.

    Raises:
        CohortError: It is negative.
    """

    longest: int

    def __post_init__(self) -> None:
        check_setting(self.longest >= 0, f"Gaps of up to {self.longest} times.", "0 or more.")

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with less recorded."""

        def draw(there: Tensor) -> Tensor:
            num, width = there.shape
            most = min(self.longest, width)
            length = torch.randint(0, most + 1, (num, 1), generator=generator)
            start = (torch.rand(num, 1, generator=generator) * (width - length + 1)).floor()
            place = torch.arange(width)
            return (place < start) | (place >= start + length)

        return _masked(cohort, draw)


@dataclass(frozen=True)
class Dropout:
    r"""Individuals leave (monotone missingness): only the first n recorded times stay, n uniform.

    Args:
        least: Smallest n; the largest is all.

    Raises:
        CohortError: It is negative.
    """

    least: int = 1

    def __post_init__(self) -> None:
        check_setting(self.least >= 0, f"At least {self.least} times before dropout.", "0 or more.")

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with less recorded."""

        def draw(there: Tensor) -> Tensor:
            most = there.sum(1, keepdim=True)
            span = (most - self.least + 1).clamp(min=1)
            count = self.least + (torch.rand(len(there), 1, generator=generator) * span).floor()
            return there.cumsum(1) <= count

        return _masked(cohort, draw)


@dataclass(frozen=True)
class BelowLimit:
    r"""Values below a limit are not recorded. **Not at random**: it looks at the values.

    A model that leaves such values out of its likelihood is biased by them. It is right only beside
    a model that says so: an observed site ``<name>_recorded``, or a censored likelihood.

    Args:
        limit: In the unit of the data.
        series: Names of the series it holds for. Default: all.
    """

    limit: float
    series: tuple[str, ...] | None = None

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with less recorded."""
        names = cohort.series if self.series is None else self.series
        return cohort.with_observed({name: cohort[name].values >= self.limit for name in names})


@dataclass(frozen=True)
class PatternsOf:
    r"""What was recorded is drawn from the patterns of a cohort, whole individuals at a time.

    Args:
        cohort: Whose patterns; its series have as many columns as those they are laid on.

    Raises:
        CohortError: When called: the columns differ.
    """

    cohort: Cohort

    def __call__(self, cohort: Cohort, generator: Generator) -> Cohort:
        """The cohort with less recorded."""
        picked = torch.randint(len(self.cohort), (len(cohort),), generator=generator)
        masks = {}
        for name, s in cohort.series.items():
            pattern = self.cohort[name].observed
            if pattern.shape[1:] != s.observed.shape[1:]:
                raise CohortError(
                    f"The patterns of {name!r} have shape {tuple(pattern.shape[1:])}.",
                    f"{tuple(s.observed.shape[1:])}, (time[, channel]) of the design.",
                    "use a design with the columns of that cohort.",
                )
            masks[name] = pattern[picked.to(pattern.device)].to(s.observed.device)
        return cohort.with_observed(masks)


def nothing_missing(cohort: Cohort, generator: Generator) -> Cohort:
    """The mechanism under which nothing goes missing."""
    return cohort
