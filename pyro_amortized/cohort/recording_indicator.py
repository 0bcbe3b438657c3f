r"""Recording indicators: which values were recorded, as observations of their own.

If the probability that a value is recorded depends on parameters or on the value itself, the model
has to describe the recording. The series ``<name>_recorded`` then holds 1 where a scheduled value
of the series ``<name>`` was recorded and 0 where it was not. Its own mask tells which times were
scheduled. The model observes both series.

Where individuals leave the study, the time of leaving is an event of its own: the series
``<name>_dropout`` (of one series) or ``dropout`` (of every series with one value per time) has a
time and a status, as ``nlme.event_series`` gives them, and nothing is recorded after the event.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..errors import CohortError
from .cohort import Cohort
from .series import Series

RECORDED = "_recorded"
DROPOUT = "dropout"


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


def dropout_of(cohort: Cohort, name: str) -> str | None:
    """Name of the series of the dropout that ends a series, or None."""
    own = f"{name}_{DROPOUT}"
    if own in cohort.series:
        return own
    is_event = name == DROPOUT or name.endswith(f"_{DROPOUT}")
    is_ended = DROPOUT in cohort.series and not is_event and cohort[name].values.dim() == 2
    return DROPOUT if is_ended else None


def after_dropout(times: Tensor, dropout: Tensor) -> Tensor:
    r"""Which times lie after the dropout.

    Args:
        times: Shape ``(*, individual, time)``.
        dropout: Time and status, shape ``(*, individual, 1, 2)``.
    """
    happened = dropout[..., 1] > 0.5  # a float is not compared exactly with 1
    return (times > dropout[..., 0]) & happened


def as_scheduled(cohort: Cohort) -> Cohort:
    """The cohort before the recording: every scheduled value of a series with an indicator counts
    as recorded, and every time of its own after a dropout.
    """
    series = dict(cohort.series)
    for name in series_with_indicator(cohort):
        s = series[name]
        series[name] = Series(s.times, s.values, series[f"{name}{RECORDED}"].observed)
    for name, event in _series_with_dropout(cohort).items():
        s = series[name]
        later = torch.ones_like(s.times, dtype=torch.bool)
        later[:, 1:] = s.times[:, 1:] > s.times[:, :-1]  # padding repeats the last time
        later &= after_dropout(s.times, cohort[event].values)
        both = later if s.observed.dim() == 2 else later.unsqueeze(-1)
        series[name] = Series(s.times, s.values, s.observed | both)
    same = all(series[name] is cohort[name] for name in series)
    return cohort if same else replace(cohort, series=series)


def _series_with_dropout(cohort: Cohort) -> dict[str, str]:
    """Name of the dropout of each series that has one."""
    found = {name: dropout_of(cohort, name) for name in cohort.series}
    return {name: event for name, event in found.items() if event is not None}


def as_recorded(cohort: Cohort) -> Cohort:
    """The cohort without the values that are not recorded according to its indicators, and without
    those after a dropout.
    """
    masks = {name: _is_recorded(cohort, name) for name in series_with_indicator(cohort)}
    for name, event in _series_with_dropout(cohort).items():
        kept = ~after_dropout(cohort[name].times, cohort[event].values)
        kept = kept if cohort[name].values.dim() == 2 else kept.unsqueeze(-1)
        masks[name] = masks.get(name, True) & kept.expand_as(cohort[name].observed)
    return cohort.with_observed(masks)


def check_indicators(cohort: Cohort) -> None:
    r"""Raise if the masks of a cohort contradict its recording indicators or dropouts.

    Raises:
        CohortError: A series and its indicator differ in shape, or about a value; a value is
            recorded after a dropout, or a dropout is no series of one event.
    """
    for name, event in _series_with_dropout(cohort).items():
        shape = tuple(cohort[event].values.shape)
        if shape[1:] != (1, 2):
            raise CohortError(
                f"The dropout {event!r} has values of shape {shape}.",
                "(individual, 1, 2): time and status of one event.",
                f"make it by `nlme.event_series(times, happened)`, or give the series {event!r} "
                "another name if it is no dropout.",
            )
        late = cohort[name].present & after_dropout(cohort[name].times, cohort[event].values)
        if bool((late & cohort[event].observed.all(-1)).any()):
            i = int(late.any(1).nonzero()[0])
            raise CohortError(
                f"Individual {cohort.ids[i]} has values of {name!r} after its {event!r} at time "
                f"{float(cohort[event].values[i, 0, 0]):g}.",
                "no recorded value after a dropout, which ends the observation.",
                "correct the data, or give the event another name: a series that is not named "
                f"{DROPOUT!r} or '<series>_{DROPOUT}' ends nothing.",
            )
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
