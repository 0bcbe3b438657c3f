r"""The form of a cohort: what all cohorts that one encoder reads have in common.

The form is taken from the simulated training data. It fixes the number of features of a token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..cohort import Cohort
from ..errors import GuideError
from .channels import num_channels

NUM_DOSE_FEATURES = 4  # amount, log amount, duration, compartment
NUM_EVENT_FEATURES = 3  # interval, steady state, reset


@dataclass(frozen=True)
class Form:
    r"""What all cohorts that one encoder reads have in common.

    Args:
        series: Names of the series that the model observes.
        channels: Number of channels of each series.
        covariates: Names of the covariates.
        has_doses: Whether the cohorts have doses.
        grid: Times of each series if all individuals share them. Every time of the grid then has a
            token, whether or not a value was recorded. None if the times are individual.
        num_times: Largest number of times of a series.
        time_varying: Names of the covariates that vary over time.
        has_events: Whether there are steady states, resets, or rates and durations that the model
            gives.
        windows: Times between the windows of each series if the individuals follow a schedule
            roughly. The first value in every window then has a fixed place. None on a grid, and if
            the times follow no schedule.
        categories: Names of the categories of covariates.
    """

    series: tuple[str, ...]
    channels: tuple[int, ...]
    covariates: tuple[str, ...]
    has_doses: bool
    grid: Mapping[str, Sequence[float]] | None = None
    num_times: int = 0
    time_varying: tuple[str, ...] = ()
    has_events: bool = False
    windows: Mapping[str, Sequence[float]] | None = None
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        series: Sequence[str],
        grid: Mapping[str, Sequence[float]] | None = None,
        windows: Mapping[str, Sequence[float]] | None = None,
    ) -> "Form":
        r"""The form of a cohort.

        Args:
            cohort: N individuals.
            series: Names of the series that the model observes.
            grid: Times of each series if all individuals share them, or None.
            windows: Times between the windows of each series, or None.
        """
        channels = tuple(num_channels(cohort, name) for name in series)
        covariates = tuple(sorted(cohort.covariates))
        longest = max(cohort[name].times.shape[1] for name in series)
        doses = cohort.doses
        varying = tuple(sorted(cohort.time_varying))
        events = doses is not None and doses.has_events
        return cls(
            series=tuple(series),
            channels=channels,
            covariates=covariates,
            has_doses=doses is not None,
            grid=grid,
            num_times=longest,
            time_varying=varying,
            has_events=events,
            windows=windows,
            categories=dict(cohort.categories),
        )

    @property
    def num_dose_features(self) -> int:
        """Number of features of a dose.

        They are the amount on two scales, duration and compartment, and also interval, steady state
        and reset if ``has_events``.
        """
        return NUM_DOSE_FEATURES + (NUM_EVENT_FEATURES if self.has_events else 0)

    @property
    def num_places(self) -> int:
        """Number of tokens that have a fixed place, which is that of all times of the grids or of
        all windows; 0 if there are none.
        """
        if self.windows is not None:
            return sum(len(edges) + 1 for edges in self.windows.values())
        return sum(len(times) for times in self.grid.values()) if self.grid is not None else 0


def check_form(cohort: Cohort, form: Form) -> None:
    r"""Raise unless a cohort has a form.

    Args:
        cohort: N individuals.
        form: The form of the training data.

    Raises:
        GuideError: A series or covariate is missing, a number of channels differs, or only one of
            the cohort and the form has doses.
    """
    actual = {
        "series": {n: num_channels(cohort, n) for n in form.series if n in cohort},
        "covariates": sorted(set(cohort.covariates) & set(form.covariates)),
        "time-varying covariates": sorted(set(cohort.time_varying) & set(form.time_varying)),
        "doses": cohort.doses is not None,
    }
    expected = {
        "series": dict(zip(form.series, form.channels, strict=True)),
        "covariates": sorted(form.covariates),
        "time-varying covariates": sorted(form.time_varying),
        "doses": form.has_doses,
    }
    for part, value in expected.items():
        if actual[part] != value:
            raise GuideError(
                f"The cohort has {part} {actual[part]}.",
                f"{part} {value}, as in the training data of the guide.",
                "bring the cohort into the form of the training data (limits of quantification by "
                "`read_table(..., lloq=)`, also where no value is censored), or train a guide for "
                "this cohort.",
            )
    _check_categories(cohort, form)


def _check_categories(cohort: Cohort, form: Form) -> None:
    """Raise where the numbers of categories have other names than in the training data."""
    for name, names in form.categories.items():
        own = cohort.categories.get(name)
        if own is not None and tuple(own) != tuple(names):
            raise GuideError(
                f"The covariate {name!r} has the categories {list(own)}, numbered in this order.",
                f"{list(names)}, as in the training data of the guide.",
                f"read the table with `categories={{{name!r}: {list(names)}}}`.",
            )
