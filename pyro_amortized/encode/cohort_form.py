r"""The form of the cohorts that an encoder reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..cohort import Cohort
from .channels import num_channels

NUM_DOSE_FEATURES = 4


NUM_EVENT_FEATURES = 3


@dataclass(frozen=True)
class Form:
    r"""What the cohorts of an encoder look like.

    Args:
        series: Names of the series that the model observes.
        channels: Number of channels of each.
        covariates: Names of the covariates.
        has_doses: Whether the cohorts have doses.
        grid: Times of each series if all individuals share them: tokens then stand in the places of
            the grid, recorded or not. None for individual times.
        num_times: Largest number of times of a series.
        time_varying: Names of the covariates that vary over time.
        has_events: Whether doses have steady states, resets or rates of the model.
    """

    series: tuple[str, ...]
    channels: tuple[int, ...]
    covariates: tuple[str, ...]
    has_doses: bool
    grid: Mapping[str, Sequence[float]] | None = None
    num_times: int = 0
    time_varying: tuple[str, ...] = ()
    has_events: bool = False

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        series: Sequence[str],
        grid: Mapping[str, Sequence[float]] | None = None,
    ) -> "Form":
        """The form of a cohort."""
        channels = tuple(num_channels(cohort, name) for name in series)
        covariates = tuple(sorted(cohort.covariates))
        longest = max(cohort[name].times.shape[1] for name in series)
        doses = cohort.doses
        varying = tuple(sorted(cohort.time_varying))
        events = doses is not None and doses.has_events
        return cls(
            tuple(series), channels, covariates, doses is not None, grid, longest, varying, events
        )

    @property
    def num_dose_features(self) -> int:
        """Features per dose, that is amount on two scales, duration, compartment, and interval,
        steady state and reset where there are any.
        """
        return NUM_DOSE_FEATURES + (NUM_EVENT_FEATURES if self.has_events else 0)

    @property
    def num_places(self) -> int:
        """Number of tokens in fixed places, the points of the grid; 0 without one."""
        return sum(len(times) for times in self.grid.values()) if self.grid is not None else 0
