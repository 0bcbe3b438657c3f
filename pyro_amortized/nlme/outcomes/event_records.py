r"""Series of events: from times and what happened, from intervals, or from a series of a table."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cohort import Cohort, Series
from ...errors import CohortError


def event_series(times: Tensor, happened: Tensor, *, end: Tensor | float | None = None) -> Series:
    r"""The series of an event that happens once or recurs.

    Args:
        times: Time of the event, or the time until which there was none (right-censored), shape
            ``(individual,)``; for events that recur ``(individual, event)``, increasing, the last
            one the end of the observation of the individual, NaN in the padding.
        happened: Whether it is an event (True, 1) or the end of the observation (False, 0), same
            shape.
        end: End of the planned follow-up of each individual, at which simulated individuals are
            censored; it does not enter the density. Default: the censored time of an individual
            that is censored, and the latest time of all for the others.

    Returns:
        The series, whose times are the ends of the follow-up, with values ``(individual, event,
        2)``, time and status.

    Raises:
        CohortError: Shapes differ, a time is negative or decreases, an event follows the end of the
            observation, or an end lies before a recorded time.

    Example:
        >>> series = event_series(torch.tensor([2.0, 5.0]), torch.tensor([1, 0]))
        >>> series.values[:, 0]
        tensor([[2., 1.],
                [5., 0.]])
    """
    times, happened = _as_tensors(times=times, happened=happened)
    if not times.is_floating_point():
        times = times.to(torch.get_default_dtype())
    if not len(times) or times.dim() not in (1, 2) or happened.shape != times.shape:
        raise CohortError(
            f"`times` has shape {tuple(times.shape)}, `happened` {tuple(happened.shape)}.",
            "(individual,) or (individual, event), both the same, with at least one individual.",
            "pass one time and one status for each event and for the end of the observation.",
        )
    if times.dim() == 1:
        times, happened = times.unsqueeze(-1), happened.unsqueeze(-1)
    known = times.isfinite()
    status = torch.where(known, happened.to(times.dtype), 0.0)
    _check_events(times, known, status)
    filled = times.nan_to_num(-torch.inf).cummax(-1).values
    last = filled[:, -1]
    is_open = ~((status > 0) | ~known).all(-1)  # the end of the observation is among the rows
    ends = torch.where(is_open, last, last.max()) if end is None else _ends(end, last)
    # Rows after the end of the observation repeat it; after a last event they are not recorded.
    observed = known | (is_open.unsqueeze(-1) & (known.cumsum(-1) > 0))
    values = torch.stack([filled, status], -1)
    both = observed.unsqueeze(-1).expand_as(values)
    return Series(ends.unsqueeze(-1).expand_as(filled).contiguous(), values, both.contiguous())


def _ends(end: Tensor | float, last: Tensor) -> Tensor:
    """The given ends of the follow-up, none of them before the last time of its individual."""
    ends = _as_tensors(end=end)[0].to(last.dtype)
    if ends.shape not in (torch.Size([]), last.shape):
        raise CohortError(
            f"`end` has shape {tuple(ends.shape)}.",
            f"({len(last)},), one end for each individual, or a number.",
            "correct `end=`.",
        )
    ends = ends.expand(len(last))
    if not bool((ends >= last).all()):
        i = int((~(ends >= last)).nonzero()[0])
        raise CohortError(
            f"Individual {i} has the end {float(ends[i]):g} and the time {float(last[i]):g}.",
            "no event and no censoring after the end of the planned follow-up.",
            "correct `end=`.",
        )
    return ends


def _as_tensors(**arguments: Any) -> list[Tensor]:
    """Arguments as tensors; arrays, lists and columns of a table are allowed."""
    found = []
    for name, value in arguments.items():
        try:
            found.append(value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value)))
        except (TypeError, ValueError) as error:
            raise CohortError(
                f"`{name}` is a {type(value).__name__} that is no tensor of numbers: {error}",
                "a tensor, an array or a list of numbers.",
                "convert it, for instance by `torch.tensor(values)`.",
            ) from error
    return found


def _check_events(times: Tensor, known: Tensor, status: Tensor) -> None:
    """Raise unless the events of every individual are in order."""
    earlier = times.nan_to_num(-torch.inf).cummax(-1).values
    ended = ((status == 0) & known).cumsum(-1)
    faults = {
        "has no time at all": ~known[:, 0],
        "has a negative or infinite time": ((times < 0) | times.isinf()).any(-1),
        "has times that decrease": (known & (times < earlier)).any(-1),
        "has a row after the end of its observation": (known[:, 1:] & (ended[:, :-1] > 0)).any(-1),
        "has a status that is neither 0 nor 1": ((status != 0) & (status != 1)).any(-1),
        "has a time after the padding": (known[:, 1:] & ~known[:, :-1]).any(-1),
    }
    for words, wrong in faults.items():
        if bool(wrong.any()):
            i = int(wrong.nonzero()[0])
            raise CohortError(
                f"Individual {i} {words}: times {times[i].tolist()}, status {status[i].tolist()}.",
                "increasing times, each with status 1, and then at most one time with status 0, "
                "the end of the observation.",
                "correct the data; times count from the begin of the observation, 0.",
            )


def interval_series(lower: Tensor, upper: Tensor) -> tuple[Series, Series]:
    r"""The series of an event that is known to lie in an interval, and the visits that say so.

    ========================  ==================================================================
    exact                     ``lower == upper``
    interval-censored         ``lower < upper``
    left-censored             ``lower`` is 0: the first visit has found the event
    right-censored            ``upper`` is infinite: the last visit, at ``lower``, has found none
    ========================  ==================================================================

    Args:
        lower: Last time at which the event had not happened, shape ``(individual,)``.
        upper: First time at which it had happened, same shape.

    Returns:
        The series of the event, and that of the visits, which belongs among ``time_varying`` of the
        cohort and is the argument ``visits`` of ``nlme.EventTimes``.

    Raises:
        CohortError: An interval is empty or negative, or shapes differ.

    Example:
        >>> upper = torch.tensor([2.0, torch.inf])
        >>> series, visits = interval_series(torch.tensor([1.0, 4.0]), upper)
        >>> series.values[:, 0]
        tensor([[2., 1.],
                [4., 0.]])
    """
    lower, upper = (
        x if x.is_floating_point() else x.to(torch.get_default_dtype())
        for x in _as_tensors(lower=lower, upper=upper)
    )
    if lower.shape != upper.shape or lower.dim() != 1 or not len(lower):
        raise CohortError(
            f"`lower` has shape {tuple(lower.shape)}, `upper` {tuple(upper.shape)}.",
            "(individual,), both the same.",
            "pass one interval per individual.",
        )
    wrong = ~((lower >= 0) & (upper >= lower) & lower.isfinite() & (upper > 0))
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise CohortError(
            f"Individual {i} has the interval from {float(lower[i]):g} to {float(upper[i]):g}.",
            "0 <= lower <= upper, upper positive, and a finite lower end.",
            "a right-censored event has an infinite `upper`.",
        )
    happened, exact = upper.isfinite(), lower == upper
    times = torch.where(happened, upper, lower)
    places = torch.stack([torch.minimum(lower, times), times], -1)
    is_visit = ~exact.unsqueeze(-1) & (places > 0)
    visits = Series(places, torch.ones_like(places), is_visit)
    return event_series(times, happened, end=times.max()), visits


def with_events(cohort: Cohort, name: str, *, end: Tensor | float | None = None) -> Cohort:
    r"""The cohort with a series of a table as a series of events.

    In a table an event is a row with the value 1 at its time, and the end of the observation a row
    with the value 0. Rows with the value 0 before the last one (begin of the observation, visits
    without an event) say nothing about an event that is recorded exactly, and are left out.

    Args:
        cohort: N individuals, with a series of ones and zeros.
        name: Name of the series.
        end: As for :func:`event_series`.

    Raises:
        CohortError: The cohort has no such series, it has other values, or an individual has no
            row.

    Example:
        >>> times = torch.tensor([[0.0, 2.0], [0.0, 5.0]])
        >>> rows = Series(times, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
        >>> with_events(Cohort({"death": rows}), "death")["death"].values[:, 0]
        tensor([[2., 1.],
                [5., 0.]])
    """
    series = cohort[name]
    present, values = series.observed, series.values
    is_binary = values.dim() == 2 and bool(((values == 0) | (values == 1))[present].all())
    if not is_binary or not bool(present.any(-1).all()):
        raise CohortError(
            f"The series {name!r} is no series of events.",
            "rows with the value 1 (event) or 0 (none until this time), at least one for each "
            "individual.",
            "code the column as 0 and 1; a series from `nlme.event_series` is one already.",
        )
    columns = torch.arange(values.shape[1]).expand_as(values)
    last = torch.where(present, columns, -1).amax(-1, keepdim=True)
    kept = present & ((values == 1) | (columns == last))
    order = (~kept).to(torch.uint8).argsort(dim=-1, stable=True)
    width = int(kept.sum(-1).max())
    moved = torch.where(kept, series.times, torch.nan).gather(1, order)[:, :width]
    happened = torch.where(kept, values, 0.0).gather(1, order)[:, :width]
    events = event_series(moved, happened, end=end)
    return replace(cohort, series={**cohort.series, name: events})
