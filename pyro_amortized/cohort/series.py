r"""Series: one quantity of every individual over time.

A series is checked when it is made. Times of the padding and values that were not recorded are then
replaced by finite ones, so that no NaN remains.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..errors import CohortError
from .copies import Copies, are_copies, mapped, repeated

MAX_TIMES_IN_MESSAGE = 12  # the times of a usual individual, in one line


@dataclass(frozen=True, eq=False)
class Series:
    r"""One observed quantity of every individual over time.

    Args:
        times: Times, shape ``(individual, time)``, not decreasing, in the unit of the data. NaN is
            accepted after the last known time of an individual (padding) and is replaced by that
            time.
        values: Observations, shape ``(individual, time)`` or ``(individual, time, channel)``. NaN
            is accepted where ``observed`` is False.
        observed: True where a value was recorded, shape of ``values``. Default: where ``values`` is
            not NaN.

    Raises:
        CohortError: Shapes differ, times are not sorted, or a recorded value is not finite.

    Example:
        >>> values = torch.tensor([[1.5, float("nan"), 3.0]])
        >>> series = Series(torch.tensor([[0.0, 1.0, 2.0]]), values)
        >>> series.observed
        tensor([[ True, False,  True]])
    """

    times: Tensor
    values: Tensor
    observed: Tensor = None  # type: ignore[assignment]  # filled in __post_init__
    # What this is a number of copies of, or None.
    copied: "Copies[Series] | None" = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        values = floating(self.values, "values")
        times = floating(self.times, "times").to(values.device, values.dtype)
        if values.dim() not in (2, 3) or 0 in values.shape:
            raise CohortError(
                f"`values` has shape {tuple(values.shape)}.",
                "(individual, time) or (individual, time, channel), none of them empty.",
                "put the individuals first and give every individual at least one (possibly "
                "unrecorded) time.",
            )
        if times.shape != values.shape[:2]:
            raise CohortError(
                f"`times` has shape {tuple(times.shape)}, `values` {tuple(values.shape)}.",
                f"`times` of shape {tuple(values.shape[:2])}, (individual, time).",
                "give every individual its own row of times; `times.expand(N, -1)` repeats a "
                "common grid.",
            )
        observed = _observed(self.observed, values)
        recorded = observed if observed.dim() == 2 else observed.any(-1)
        object.__setattr__(self, "times", _check_times(times, recorded))
        object.__setattr__(self, "values", _fill(values, observed))
        object.__setattr__(self, "observed", observed)

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Series":
        """The series with a function applied to every field: a choice or copies of the individuals.

        It is not checked again.
        """
        return mapped(self, fn)

    def repeat(self, num_copies: int) -> "Series":
        """The individuals ``num_copies`` times one after the other."""
        return repeated(self, num_copies)

    @property
    def columns(self) -> dict[str, Tensor]:
        """Times, values and what was recorded, by name."""
        return {"times": self.times, "values": self.values, "observed": self.observed}

    @property
    def has_statuses(self) -> bool:
        """Whether there are two channels, of which the second is a status of 0 or 1, as of the
        times of events.
        """
        if self.values.dim() != 3 or self.values.shape[-1] != 2:
            return False
        status = self.values[..., 1][self.observed[..., 1]]
        return bool(((status == 0) | (status == 1)).all())

    def at(self, times: Tensor, rule: Literal["last", "next"] = "last") -> Tensor:
        r"""Values of a covariate that varies over time, at other times.

        Args:
            times: Shape ``(individual, when)``, in the unit of the series.
            rule: ``"last"``: the last value that was recorded at or before a time (before the first
                one, the first). ``"next"``: the next value that was recorded at or after it (after
                the last one, the last), as NONMEM uses the covariates of a record for the interval
                that ends there.

        Returns:
            Shape ``(individual, when)``.

        Raises:
            CohortError: The series has channels, ``times`` has another shape, or there is no such
                rule.

        Example:
            >>> weight = Series(torch.tensor([[0.0, 10.0]]), torch.tensor([[70.0, 68.0]]))
            >>> weight.at(torch.tensor([[0.0, 9.0, 10.0, 30.0]]))
            tensor([[70., 70., 68., 68.]])
            >>> weight.at(torch.tensor([[0.0, 9.0, 10.0, 30.0]]), "next")
            tensor([[70., 68., 68., 68.]])
        """
        if rule not in ("last", "next"):
            raise CohortError(
                f"The rule is {rule!r}.", '"last" or "next".', "correct `rule=` of `at`."
            )
        if self.values.dim() != 2:
            raise CohortError(
                f"The values of a series of shape {tuple(self.values.shape)} are needed at other "
                "times.",
                "one value per time, (individual, time).",
                "split the channels into separate series.",
            )
        if times.dim() != 2 or len(times) != len(self.times):
            raise CohortError(
                f"The values of a series of {len(self.times)} individuals are needed at times of "
                f"shape {tuple(times.shape)}.",
                "one row of times per individual, (individual, when).",
                "pass times of the same individuals, for example those of a series.",
            )
        if self.copied is not None and are_copies(times, self.copied.num):
            num, original = self.copied
            return original.at(times[: len(times) // num], rule).repeat(num, 1)
        columns = torch.arange(self.times.shape[1], device=self.times.device)
        if rule == "next":
            return self._next(times, columns)
        last = torch.where(self.observed, columns, -1).cummax(1).values
        first = self.observed.to(torch.uint8).argmax(1, keepdim=True)
        before = torch.searchsorted(self.times.contiguous(), times.contiguous(), right=True) - 1
        place = torch.where(before >= 0, last.gather(1, before.clamp(min=0)), -1)
        return self.values.gather(1, torch.where(place >= 0, place, first))

    def _next(self, times: Tensor, columns: Tensor) -> Tensor:
        """The next recorded value at or after each time, else the last one."""
        width = len(columns)
        following = torch.where(self.observed, columns, width)
        following = following.flip(1).cummin(1).values.flip(1)
        last = torch.where(self.observed, columns, -1).amax(1, keepdim=True).clamp(min=0)
        after = torch.searchsorted(self.times.contiguous(), times.contiguous())
        place = following.gather(1, after.clamp(max=width - 1))
        place = torch.where(after < width, place, width)
        return self.values.gather(1, torch.where(place < width, place, last))

    def pieces(self, rule: Literal["last", "next"] = "last") -> tuple[Tensor, Tensor]:
        r"""A covariate that varies over time as pieces, for ``nlme.Piecewise``.

        Args:
            rule: As of :meth:`at`.

        Returns:
            The times at which a piece ends, shape ``(individual, time)``, and the value on each
            piece, shape ``(individual, time + 1)``.

        Raises:
            CohortError: As :meth:`at`.

        Example:
            >>> weight = Series(torch.tensor([[0.0, 10.0]]), torch.tensor([[70.0, 68.0]]))
            >>> weight.pieces("next")
            (tensor([[ 0., 10.]]), tensor([[70., 68., 68.]]))
            >>> weight.pieces("last")
            (tensor([[ 0., 10.]]), tensor([[70., 70., 68.]]))
        """
        at = self.at(self.times, rule)
        ends = (at, at[:, -1:]) if rule == "next" else (at[:, :1], at)
        return self.times, torch.cat(ends, 1)

    @property
    def num_observations(self) -> int:
        """Number of recorded values."""
        return int(self.observed.sum())

    @property
    def present(self) -> Tensor:
        """True where any channel was recorded, shape ``(individual, time)``."""
        return self.observed if self.observed.dim() == 2 else self.observed.any(-1)


def floating(x: Tensor, name: str) -> Tensor:
    r"""A real tensor in a floating dtype.

    Args:
        x: The tensor.
        name: Its name, for the message.

    Raises:
        CohortError: Not a tensor, or complex.
    """
    if not isinstance(x, Tensor):
        raise CohortError(
            f"`{name}` is a {type(x).__name__}.", "a tensor.", f"pass torch.as_tensor({name})."
        )
    if x.is_complex():
        raise CohortError(
            f"`{name}` is complex ({x.dtype}).", "real numbers.", f"pass for example {name}.real."
        )
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _observed(observed: Tensor | None, values: Tensor) -> Tensor:
    """The mask of the recorded values, checked."""
    if observed is None:
        observed = ~values.isnan()
    if not isinstance(observed, Tensor):
        raise CohortError(
            f"`observed` is a {type(observed).__name__}.",
            "a boolean tensor, True = recorded.",
            "pass torch.as_tensor(observed).",
        )
    if observed.shape != values.shape:
        raise CohortError(
            f"`observed` has shape {tuple(observed.shape)}.",
            f"{tuple(values.shape)}, the shape of `values`.",
            "pad every individual to the same number of times and set `observed` to False in "
            "the padding.",
        )
    if observed.dtype != torch.bool:
        raise CohortError(
            f"`observed` has dtype {observed.dtype}.",
            "a boolean mask, True = recorded.",
            "pass `observed.bool()`.",
        )
    not_finite = observed & ~values.isfinite()
    if not_finite.any():
        where = not_finite.nonzero()[0].tolist()
        raise CohortError(
            f"Individual {where[0]} has a recorded value that is not finite at time index "
            f"{where[1]} ({int(not_finite.sum())} such values in all).",
            "finite values wherever `observed` is True.",
            "set `observed` to False there if the value was not recorded, or correct it.",
        )
    return observed


def _check_times(times: Tensor, recorded: Tensor) -> Tensor:
    """The times with NaN of the padding replaced by the last known time of the individual."""
    if bool((times[:, 1:] >= times[:, :-1]).all() & times[:, [0, -1]].isfinite().all()):
        return times  # sorted and finite: the usual case needs no further step
    known = times.isfinite()
    unusable = ~known & (recorded | times.isinf())
    if unusable.any():
        raise CohortError(
            f"Individual {int(unusable.any(1).nonzero()[0])} has a recorded value at a time that "
            "is not finite.",
            "a finite time for every recorded value.",
            "give the time; NaN is accepted only as padding after the last recorded value.",
        )
    filled = torch.where(known, times, torch.finfo(times.dtype).min).cummax(1).values
    gap = ~known & (known.flip(1).cummax(1).values.flip(1) if known.shape[1] else known)
    unsorted = (times.nan_to_num(0.0) < filled) & known
    if gap.any() or unsorted.any() or not known[:, 0].all():
        wrong = (gap | unsorted).any(1) | ~known[:, 0]
        i = int(wrong.nonzero()[0])
        shown = [round(t, 4) for t in times[i].tolist()[:MAX_TIMES_IN_MESSAGE]]
        raise CohortError(
            f"The times of individual {i} are not sorted: {shown}.",
            "times that do not decrease along the row (equal times are allowed), known up to the "
            "padding.",
            "sort the rows of each individual by time before you make the series; "
            "`nlme.read_table` does it.",
        )
    return torch.where(known, times, filled)


def _fill(values: Tensor, observed: Tensor) -> Tensor:
    """Replace what was not recorded: by the first recorded value of the individual, else by the
    first recorded value of the series, else by 1.
    """
    if observed.all():
        return values
    recorded = values[observed]
    overall = recorded[0] if len(recorded) else values.new_ones(())
    first = observed.to(torch.uint8).argmax(1, keepdim=True)
    own = values.gather(1, first)
    own = torch.where(observed.any(1, keepdim=True), own, overall)
    return torch.where(observed, values, own)
