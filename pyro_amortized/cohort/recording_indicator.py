r"""Recording indicators: which values were recorded, as observations of their own.

If the probability that a value is recorded depends on parameters or on the value itself, the model
has to describe the recording. The series ``<name>_recorded`` then holds 1 where a scheduled value
of the series ``<name>`` was recorded and 0 where it was not. Its own mask tells which times were
scheduled. The model observes both series.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..errors import CohortError
from .cohort import Cohort
from .series import Series

RECORDED = "_recorded"


def series_with_indicator(cohort: Cohort) -> list[str]:
    """Names of the series that have a recording indicator in the cohort."""
    return [name for name in cohort.series if f"{name}{RECORDED}" in cohort]


def with_recorded(cohort: Cohort, name: str, scheduled: Tensor | None = None) -> Cohort:
    r"""The cohort with a series ``<name>_recorded``: 1 where ``name`` was recorded, 0 where not.

    Args:
        cohort: N individuals.
        name: Name of a series.
        scheduled: True where a value should have been recorded, shape of the values of the series.
            Default: everywhere.

    Raises:
        CohortError: A value was recorded that was not scheduled, or ``scheduled`` has another
            shape.

    Example:
        >>> values = torch.tensor([[1.5, float("nan"), 3.0]])
        >>> cohort = Cohort({"y": Series(torch.tensor([[0.0, 1.0, 2.0]]), values)})
        >>> with_recorded(cohort, "y")["y_recorded"].values
        tensor([[1., 0., 1.]])
    """
    s = cohort[name]
    plan = torch.ones_like(s.observed) if scheduled is None else scheduled
    if plan.shape != s.observed.shape or bool((s.observed & ~plan).any()):
        raise CohortError(
            f"Values of {name!r} were recorded where `scheduled` (shape {tuple(plan.shape)}) is "
            "False.",
            f"`scheduled` of shape {tuple(s.observed.shape)}, True wherever a value was recorded.",
            "correct `scheduled`, or omit it: then every time counts as scheduled.",
        )
    indicator = Series(s.times, s.observed.to(s.values.dtype), plan)
    return replace(cohort, series={**cohort.series, f"{name}{RECORDED}": indicator})


def as_scheduled(cohort: Cohort) -> Cohort:
    """The cohort before the recording: every scheduled value of a series with an indicator counts
    as recorded.
    """
    names = series_with_indicator(cohort)
    if not names:
        return cohort
    series = dict(cohort.series)
    for name in names:
        s = series[name]
        series[name] = Series(s.times, s.values, series[f"{name}{RECORDED}"].observed)
    return replace(cohort, series=series)


def as_recorded(cohort: Cohort) -> Cohort:
    """The cohort without the values that are not recorded according to its indicators."""
    return cohort.with_observed(
        {name: _is_recorded(cohort, name) for name in series_with_indicator(cohort)}
    )


def check_indicators(cohort: Cohort) -> None:
    r"""Raise if the masks of a cohort contradict its recording indicators.

    Raises:
        CohortError: A series and its indicator differ in shape, or about a value.
    """
    for name in series_with_indicator(cohort):
        observed = cohort[name].observed
        expected = cohort[f"{name}{RECORDED}"].observed & _is_recorded(cohort, name)
        if observed.shape != expected.shape or bool((observed != expected).any()):
            raise CohortError(
                f"The series {name!r} and {name + RECORDED!r} disagree about what was recorded.",
                f"{name + RECORDED!r} of the same shape, 1 where {name!r} was recorded, 0 where it "
                "was not.",
                f'make it by `with_recorded(cohort, "{name}")`.',
            )


def _is_recorded(cohort: Cohort, name: str) -> Tensor:
    """True where the indicator of a series is 1; a float is not compared exactly with 1."""
    return cohort[f"{name}{RECORDED}"].values > 0.5
