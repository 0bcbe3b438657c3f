r"""Dosing regimens: the doses of any individual, before it is known who receives them.

A :class:`Regimen` is a plan in words that a protocol uses: an amount, an interval, a number of
doses, a duration of infusion, a loading dose, a steady state. :meth:`Regimen.doses` turns it into
the :class:`~pyro_amortized.Doses` of N individuals, with amounts per unit of a covariate where the
plan says so (mg/kg). Times are counted from the first dose.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..cohort import Doses
from ..errors import SettingError
from ..runtime.arguments import check_count, check_number
from .regimen_labels import regimen_label

ROUNDING = 1e-9  # times that differ by less than this part of an interval are the same


@dataclass(frozen=True)
class Regimen:
    r"""A plan of doses. Made by :func:`regimen`.

    Args:
        times: Time of each dose, counted from the begin of the regimen, in the unit of the data.
        amounts: Amount of each dose; per unit of the covariate ``per`` if there is one.
        durations: Duration of each infusion; 0 is a bolus or an oral dose.
        compartments: Number of the compartment that receives each dose, 1 first.
        steady_state: Whether a dose stands for infinitely many earlier doses, too.
        interval: Dosing interval, or None for a single dose.
        per: Name of the covariate that multiplies the amounts, or None.

    Example:
        >>> regimen(100, 12, 3) + regimen(20, start=4)
        Regimen(100 at 0, 12, 24; 20 at 4)
    """

    times: tuple[float, ...]
    amounts: tuple[float, ...]
    durations: tuple[float, ...]
    compartments: tuple[int, ...]
    steady_state: tuple[bool, ...]
    interval: float | None = None
    per: str | None = None

    def __repr__(self) -> str:
        return f"Regimen({self.label})"

    @property
    def num(self) -> int:
        """Number of doses."""
        return len(self.times)

    @property
    def label(self) -> str:
        """The regimen in a few words. Regimens with different doses have different labels."""
        return regimen_label(self)

    @property
    def last(self) -> float:
        """Time of the first dose of the last interval."""
        return min(self.times[j] for j in self._of_last_interval())

    @property
    def end(self) -> float | None:
        """End of the last interval; None for a single dose without an interval."""
        return None if self.interval is None else self.last + self.interval

    def _of_last_interval(self) -> list[int]:
        """Numbers of the doses in the interval that ends with the last dose."""
        begin = max(self.times) - (self.interval or 0.0) * (1 - ROUNDING)
        return [j for j, t in enumerate(self.times) if t > begin or t == max(self.times)]

    def __add__(self, other: "Regimen") -> "Regimen":
        """Both regimens together, doses in the order of time.

        The interval is the larger one if it is a multiple of the other. A steady state that begins
        after the other regimen began is continued backwards to this time.

        Raises:
            SettingError: The amounts have different units, or a steady state has no interval that
                both regimens share.
        """
        if self.per != other.per:
            raise SettingError(
                f"Regimens per {self.per or 'individual'} and per {other.per or 'individual'} are "
                "added.",
                "regimens whose amounts have the same unit.",
                "use the same `per=` in both.",
            )
        interval = common_interval(self.interval, other.interval)
        for part in (self, other):
            if any(part.steady_state) and part.interval != interval:
                raise SettingError(
                    f"A steady state with the interval {part.interval:g} is added to doses with "
                    f"another interval ({self.label}, and {other.label}).",
                    "one interval, after which all doses repeat.",
                    "write the plan with the longer interval, for example `regimen(100, 24, "
                    "steady_state=True) + regimen(100, 24, start=12, steady_state=True)`.",
                )
        begin = min(self.times + other.times)
        parts = (self._continued_back(begin), other._continued_back(begin))
        names = ("times", "amounts", "durations", "compartments", "steady_state")
        both = {n: getattr(parts[0], n) + getattr(parts[1], n) for n in names}
        order = sorted(range(len(both["times"])), key=lambda j: both["times"][j])
        ordered: dict[str, Any] = {n: tuple(x[j] for j in order) for n, x in both.items()}
        return replace(self, **ordered, interval=interval)

    def _continued_back(self, begin: float) -> "Regimen":
        """The same plan, whose doses at steady state stand at or before a time."""
        rows: list[tuple[float, int, bool]] = []
        for j, (time, steady) in enumerate(zip(self.times, self.steady_state, strict=True)):
            back = 0
            if steady and self.interval is not None and time > begin:
                back = math.ceil((time - begin) / self.interval - ROUNDING)
            rows += [
                (time - k * (self.interval or 0.0), j, steady and k == back)
                for k in range(back, -1, -1)
            ]
        return self._chosen(sorted(rows, key=lambda row: row[0]))

    def _chosen(self, rows: Sequence[tuple[float, int, bool]]) -> "Regimen":
        """Doses of this plan at other times: time, number of the dose, and steady state of each."""
        times, index, steady = zip(*rows, strict=True)
        return replace(
            self,
            times=times,
            amounts=tuple(self.amounts[j] for j in index),
            durations=tuple(self.durations[j] for j in index),
            compartments=tuple(self.compartments[j] for j in index),
            steady_state=steady,
        )

    def scaled(self, factor: float) -> "Regimen":
        """The same plan with all amounts multiplied by a factor."""
        check_number("factor", factor, 0)
        return replace(self, amounts=tuple(factor * x for x in self.amounts))

    def with_amount(self, amount: float) -> "Regimen":
        """The same plan with another amount of the last dose; the others (a loading dose) change in
        proportion. A last dose of 0 is a SettingError.
        """
        if not self.amounts[-1] > 0:
            raise SettingError(
                "The last dose of the regimen has the amount 0.",
                "a positive amount, in proportion to which all doses change.",
                "pass for example `nlme.regimen(1.0, ...)`.",
            )
        return self.scaled(amount / self.amounts[-1])

    def at_steady_state(self, low: float = 0.0, high: float | None = None) -> "Regimen":
        r"""The doses of the last interval at steady state.

        Args:
            low: Begin of the time for which the doses are wanted, counted from the first dose of
                an interval.
            high: Its end. Default: one interval.

        Returns:
            A regimen whose times are counted from the first dose of an interval.

        Raises:
            SettingError: The regimen has no interval.

        Example:
            >>> (regimen(100, 24, 5) + regimen(50, 24, 5, start=8)).at_steady_state().times
            (-16.0, 0.0, 8.0)
        """
        return self._chosen(self.steady_rows(low, high))

    def steady_rows(
        self, low: float = 0.0, high: float | None = None
    ) -> list[tuple[float, int, bool]]:
        """Time, number of the dose in this plan, and whether it is a steady state, of the doses of
        :meth:`at_steady_state`; same arguments and errors.
        """
        tau = self.interval
        if tau is None:
            raise SettingError(
                f"The regimen ({self.label}) has no dosing interval.",
                "an interval, which a steady state needs.",
                "pass `interval=` to `nlme.regimen`.",
            )
        slack = ROUNDING * tau
        end, first = tau if high is None else high, min(self.times)
        begin = min(0.0, math.floor(low / tau + ROUNDING) * tau)
        last = self._of_last_interval()
        phases = [(self.times[j] - first + slack) % tau - slack for j in last]
        phases = [max(phase - min(phases), 0.0) for phase in phases]
        rows = []
        for j, phase in zip(last, phases, strict=True):
            start = begin + phase - (tau if phase > slack else 0.0)
            num = max(1, math.ceil((end - start) / tau - ROUNDING))
            rows += [(start + k * tau, j, k == 0) for k in range(num)]
        return sorted(rows, key=lambda row: row[0])

    def doses(
        self,
        num_individuals: int,
        covariates: Mapping[str, Tensor] | None = None,
        *,
        start: Tensor | float = 0.0,
        factor: Tensor | float = 1.0,
    ) -> Doses:
        r"""The doses of N individuals.

        Args:
            num_individuals: N.
            covariates: Covariates, shape ``(individual,)`` each; needed for amounts per unit of
                one.
            start: Time at which the regimen begins, shape ``(individual,)`` or one number.
            factor: Factor of the amounts, shape ``(individual,)``, ``(individual, dose)``, or one
                number.

        Returns:
            Doses of shape ``(individual, dose)``.

        Raises:
            SettingError: The covariate ``per`` is missing.
        """
        factor = torch.as_tensor(factor, dtype=torch.float64)
        if factor.dim() < 2:
            factor = factor.expand(num_individuals).unsqueeze(1)
        if self.per is not None:
            known = dict(covariates or {})
            if self.per not in known:
                raise SettingError(
                    f"The amounts are per {self.per!r}, a covariate that the individuals lack.",
                    f"one of their covariates: {sorted(known)}.",
                    "correct `per=`, or give the covariate.",
                )
            factor = factor * known[self.per].double().unsqueeze(1)

        def row(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).expand(num_individuals, -1).clone()

        begin = torch.as_tensor(start, dtype=torch.float64).expand(num_individuals).unsqueeze(1)
        amounts = factor * row(self.amounts)
        # Infinitely many doses of nothing are no dose.
        steady = row(self.steady_state) * (amounts > 0)
        # A second steady state is added to the first one: SS = 2 of NONMEM.
        kind = steady * (1 + (steady.cumsum(1) > 1))
        return Doses(
            begin + row(self.times),
            amounts,
            row(self.durations),
            row(self.compartments).long(),
            intervals=steady * (self.interval or 0.0),
            steady_state=kind.long(),
        )


def common_interval(first: float | None, second: float | None) -> float | None:
    """The interval after which two plans repeat: the larger one if it is a multiple of the other,
    the only one if one of them is a single dose, else None.

    Example:
        >>> common_interval(24.0, 12.0), common_interval(24.0, None), common_interval(24.0, 9.0)
        (24.0, 24.0, None)
    """
    if first is None or second is None:
        return first if second is None else second
    low, high = sorted((first, second))
    ratio = high / low
    return high if abs(ratio - round(ratio)) < ROUNDING * ratio else None


def regimen(
    amount: float,
    interval: float | None = None,
    num: int | None = None,
    duration: float = 0.0,
    *,
    loading: float | None = None,
    steady_state: bool = False,
    compartment: int = 1,
    start: float = 0.0,
    per: str | None = None,
) -> Regimen:
    r"""A regimen of equal doses, with a loading dose or at steady state where wanted.

    Args:
        amount: Amount of a dose, in the unit of the data.
        interval: Dosing interval, unit of the times. Default: a single dose.
        num: Number of doses, the loading dose included. Default: 1.
        duration: Duration of an infusion; 0 is a bolus or an oral dose.
        loading: Amount of the first dose in place of ``amount``.
        steady_state: The first dose is given at steady state: infinitely many doses went before.
        compartment: Number of the compartment that receives the doses, 1 first.
        start: Time of the first dose.
        per: Name of a covariate: amounts are per unit of it (``regimen(5, 24, 7, per="weight")``
            is 5 mg/kg).

    Returns:
        The regimen; two of them are combined by ``+``.

    Raises:
        SettingError: A number is outside its range, or several doses have no interval.

    Example:
        >>> regimen(100, 12, 4, loading=200)
        Regimen(200, then 100 every 12, 4 doses)
        >>> regimen(100, 24, steady_state=True).doses(2).steady_state
        tensor([[1],
                [1]])
    """
    check_number("amount", amount, 0)
    check_number("duration", duration, 0)
    check_number("start", start, -math.inf)
    num = 1 if num is None else num
    check_count("num", num)
    check_count("compartment", compartment)
    _check_repetition(interval, num, loading, steady_state)
    amounts = (float(amount if loading is None else loading), *[float(amount)] * (num - 1))
    return Regimen(
        tuple(start + j * (interval or 0.0) for j in range(num)),
        amounts,
        (float(duration),) * num,
        (compartment,) * num,
        (bool(steady_state), *[False] * (num - 1)),
        None if interval is None else float(interval),
        per,
    )


def _check_repetition(
    interval: float | None, num: int, loading: float | None, steady_state: bool
) -> None:
    """Check that doses which are repeated have an interval, and a loading dose a beginning."""
    if interval is not None:
        check_number("interval", interval, 0, with_low=False)
    elif num > 1 or steady_state:
        raise SettingError(
            "Repeated doses (`num=`, `steady_state=`) have no dosing interval.",
            "the time between two doses.",
            "pass `interval=`, for example `nlme.regimen(100, 12, 4)`.",
        )
    if loading is not None:
        check_number("loading", loading, 0)
        if steady_state:
            raise SettingError(
                "A loading dose and a steady state.",
                "one of them: at steady state the first dose is like all earlier ones.",
                "leave out `loading=` or `steady_state=`.",
            )
