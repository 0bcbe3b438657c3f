r"""Whether a value is recorded, as data of its own.

Where it depends on parameters, or on the value itself, what is recorded is an observation: the
series ``<name>_recorded`` holds 1 or 0 for every *scheduled* time of the series ``<name>`` (its own
mask tells which times were scheduled), and the model observes both.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..errors import CohortError
from .cohort import Cohort
from .series import Series

RECORDED = "_recorded"


def series_with_indicator(cohort: Cohort) -> list[str]:
    """Names of the series beside which the cohort tells what is recorded."""
    return [name for name in cohort.series if f"{name}{RECORDED}" in cohort]


def with_recorded(cohort: Cohort, name: str, scheduled: Tensor | None = None) -> Cohort:
    r"""The cohort with a series ``<name>_recorded``: 1 where ``name`` was recorded, 0 where not.

    Args:
        cohort: N individuals.
        name: A series.
        scheduled: True where a value should have been recorded, shape of its values. Default:
            everywhere.

    Raises:
        CohortError: A value was recorded that was not scheduled.

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
            "correct `scheduled`, or leave it out: then every time counts as scheduled.",
        )
    found = Series(s.times, s.observed.to(s.values.dtype), plan)
    return replace(cohort, series={**cohort.series, f"{name}{RECORDED}": found})


def as_scheduled(cohort: Cohort) -> Cohort:
    """The cohort before it is known what will be recorded: all that was scheduled."""
    names = series_with_indicator(cohort)
    if not names:
        return cohort
    series = dict(cohort.series)
    for name in names:
        s = series[name]
        series[name] = Series(s.times, s.values, series[f"{name}{RECORDED}"].observed)
    return replace(cohort, series=series)


def as_recorded(cohort: Cohort) -> Cohort:
    """The cohort in which nothing is left that its own record calls missing."""
    return cohort.with_observed(
        {name: cohort[f"{name}{RECORDED}"].values > 0.5 for name in series_with_indicator(cohort)}
    )


def check_indicators(cohort: Cohort) -> None:
    r"""Raise where the masks of a cohort contradict its own record.

    Raises:
        CohortError: A series and its record differ in shape, or about a value.
    """
    for name in series_with_indicator(cohort):
        s, record = cohort[name], cohort[f"{name}{RECORDED}"]
        expected = record.observed & (record.values > 0.5)
        if s.observed.shape != expected.shape or bool((s.observed != expected).any()):
            raise CohortError(
                f"The series {name!r} and {name + RECORDED!r} disagree about what was recorded.",
                f"{name + RECORDED!r} of the same shape, 1 where {name!r} was recorded, 0 where "
                "not.",
                f'make it by `with_recorded(cohort, "{name}")`.',
            )
