r"""The patterns of missing values that a guide was trained on, and data that lie far outside them.

Remembered are, per series and over the simulated individuals: the range of the number of recorded
values, of the first and last recorded time and of the longest gap between recorded times; and for a
common time grid which places were always, or never, recorded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..cohort import Cohort
from ..cohort.time_grid import onto_grid

SLACK = 0.1  # of the range


@dataclass(frozen=True)
class TrainingPatterns:
    r"""What was recorded in training.

    Args:
        ranges: Smallest and largest value of each feature, by ``series: feature``.
        places: Per series on a common grid, the share of individuals recorded at each time.
        grid: The common times, or None.
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
        """The patterns of simulated individuals."""
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
        r"""Individuals whose pattern lies far outside those of the training, with the reason.

        Args:
            cohort: N individuals.

        Returns:
            By the label of the individual; empty where all is as trained.
        """
        if self.grid is not None:
            cohort = onto_grid(cohort.to(dtype=torch.float64), self.grid)
        found: dict[str, str] = {}
        for key, (low, high) in self.ranges.items():
            name, feature = key.split(": ", 1)
            x, slack = _features(cohort, name)[feature], SLACK * (high - low) + 1e-9
            for i in ((x < low - slack) | (x > high + slack)).nonzero()[:, 0].tolist():
                found.setdefault(
                    cohort.ids[i],
                    f"{feature} of {name!r} is {float(x[i]):g}, in training {low:g} to {high:g}",
                )
        for name, shares in self.places.items():
            present, share = cohort[name].present, torch.tensor(shares)
            odd = torch.where(present, share == 0, share == 1)
            for i, place in odd.nonzero().tolist():
                time = float(cohort[name].times[i, place])
                was = "never recorded" if share[place] == 0 else "never missing"
                found.setdefault(cohort.ids[i], f"{name!r} at time {time:g} was {was} in training")
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """The patterns as JSON."""
        return {"ranges": dict(self.ranges), "places": dict(self.places), "grid": self.grid}


def _features(cohort: Cohort, name: str) -> dict[str, Tensor]:
    """Features of each individual's pattern; NaN where nothing was recorded."""
    s, present = cohort[name], cohort[name].present
    times = s.times.double()
    late, early = torch.where(present, times, -torch.inf), torch.where(present, times, torch.inf)
    so_far = late.cummax(1).values
    gaps = torch.where(present[:, 1:], times[:, 1:] - so_far[:, :-1], 0.0)
    gaps = torch.where(gaps.isfinite(), gaps, 0.0)
    longest = gaps.amax(1) if gaps.shape[1] else torch.zeros(len(cohort), dtype=times.dtype)
    nothing = torch.where(present.any(1), 0.0, torch.nan)
    features = {
        "the number of recorded values": s.observed.flatten(1).sum(1).double(),
        "the first recorded time": early.amin(1) + nothing,
        "the last recorded time": late.amax(1) + nothing,
        "the longest gap": longest + nothing,
    }
    return {key: torch.where(x.isinf(), torch.nan, x) for key, x in features.items()}
