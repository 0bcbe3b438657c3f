r"""Patterns of missing values of the training data, and individuals whose pattern is outside them.

For every series the patterns hold the range over the simulated individuals of four features: the
number of recorded values, the first and the last recorded time, and the longest gap between
recorded times. On a common time grid they also hold the share of individuals that were recorded at
each time. An answer of a guide for an individual outside these ranges is an extrapolation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..cohort import Cohort
from ..cohort.time_grid import onto_grid


@dataclass(frozen=True)
class PatternSettings:
    r"""When a pattern is outside the training data.

    Args:
        tolerance: Distance outside the range of a feature that is allowed, as a share of the range:
            the range of finitely many simulations is a little smaller than that of the design.
        rounding: Distance that is allowed in addition, where the range is a single value.
    """

    tolerance: float = 0.1
    rounding: float = 1e-9


DEFAULTS = PatternSettings()


@dataclass(frozen=True)
class TrainingPatterns:
    r"""Patterns of missing values of the training data.

    Args:
        ranges: Smallest and largest value of each feature, by ``series: feature``.
        places: For each series on a common grid, the share of individuals that were recorded at
            each time.
        grid: Times of the common grid of each series, or None.
    """

    ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    places: Mapping[str, Sequence[float]] = field(default_factory=dict)
    grid: Mapping[str, Sequence[float]] | None = None

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        series: Sequence[str],
        grid: Mapping[str, Sequence[float]] | None,
    ) -> "TrainingPatterns":
        r"""The patterns of simulated individuals.

        Args:
            cohort: The simulated individuals, with missing values.
            series: Names of the series that the guide reads.
            grid: Times of the common grid of each series, or None.
        """
        ranges, places = {}, {}
        for name in series:
            for feature, x in _features(cohort, name).items():
                known = x[x.isfinite()]
                if len(known):
                    ranges[f"{name}: {feature}"] = [float(known.min()), float(known.max())]
            if grid is not None:
                places[name] = cohort[name].present.double().mean(0).tolist()
        return cls(ranges, places, grid)

    def unusual(self, cohort: Cohort) -> dict[str, str]:
        r"""Individuals whose pattern is outside those of the training data.

        Args:
            cohort: N individuals.

        Returns:
            The first difference that was found, by the label of the individual. Empty if every
            pattern is inside the ranges.

        Raises:
            GuideError: A value was recorded at a time that is not on the grid of the training data.
        """
        if self.grid is not None:
            cohort = onto_grid(cohort.to(dtype=torch.float64), self.grid)
        reasons: dict[str, str] = {}
        for key, (low, high) in self.ranges.items():
            name, feature = key.split(": ", 1)
            x = _features(cohort, name)[feature]
            tolerance = DEFAULTS.tolerance * (high - low) + DEFAULTS.rounding
            for i in ((x < low - tolerance) | (x > high + tolerance)).nonzero()[:, 0].tolist():
                reasons.setdefault(
                    cohort.ids[i],
                    f"{feature} of {name!r} is {float(x[i]):g}, in training {low:g} to {high:g}",
                )
        for name, shares in self.places.items():
            present, share = cohort[name].present, torch.tensor(shares)
            is_unusual = torch.where(present, share == 0, share == 1)
            for i, place in is_unusual.nonzero().tolist():
                time = float(cohort[name].times[i, place])
                was = "never recorded" if share[place] == 0 else "never missing"
                reason = f"{name!r} at time {time:g} was {was} in training"
                reasons.setdefault(cohort.ids[i], reason)
        return reasons

    @property
    def settings(self) -> dict[str, Any]:
        """The patterns in values that can be written as JSON."""
        return {"ranges": dict(self.ranges), "places": dict(self.places), "grid": self.grid}


def _features(cohort: Cohort, name: str) -> dict[str, Tensor]:
    """Features of the pattern of each individual, shape ``(individual,)``; NaN where nothing was
    recorded.
    """
    s, present = cohort[name], cohort[name].present
    times = s.times.double()
    # Times that were not recorded cannot be the largest (or the smallest) of an individual.
    recorded_or_low = torch.where(present, times, -torch.inf)
    recorded_or_high = torch.where(present, times, torch.inf)
    previous = recorded_or_low.cummax(1).values[:, :-1]
    gaps = torch.where(present[:, 1:], times[:, 1:] - previous, 0.0)
    gaps = torch.where(gaps.isfinite(), gaps, 0.0)
    longest = gaps.amax(1) if gaps.shape[1] else torch.zeros(len(cohort), dtype=times.dtype)
    nan_if_empty = torch.where(present.any(1), 0.0, torch.nan)
    features = {
        "the number of recorded values": s.observed.flatten(1).sum(1).double(),
        "the first recorded time": recorded_or_high.amin(1) + nan_if_empty,
        "the last recorded time": recorded_or_low.amax(1) + nan_if_empty,
        "the longest gap": longest + nan_if_empty,
    }
    return {key: torch.where(x.isinf(), torch.nan, x) for key, x in features.items()}
