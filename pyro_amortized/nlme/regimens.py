r"""Dosing regimens: the doses of any individual, before it is known who receives them.

A :class:`Regimen` is a plan in words that a protocol uses: an amount, an interval, a number of
doses, a duration of infusion, a loading dose, a steady state. :meth:`Regimen.doses` turns it into
the :class:`~pyro_amortized.Doses` of N individuals, with amounts per unit of a covariate where the
plan says so (mg/kg). Times are counted from the first dose.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cohort import Doses
from ..errors import SettingError
from ..runtime.arguments import check_count, check_number


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
        """The regimen in a few words."""
        unit = f" per {self.per}" if self.per else ""
        if self.steady_state[0] and self.num == 1:
            return f"{self.amounts[0]:g}{unit} every {self.interval:g}, steady state"
        regular = self.interval is not None and self.num > 1
        same = regular and len(set(self.amounts[1:])) == 1 and not any(self.steady_state)
        if same and self.num > 2:
            loading = "" if self.amounts[0] == self.amounts[1] else f"{self.amounts[0]:g}, then "
            return f"{loading}{self.amounts[1]:g}{unit} every {self.interval:g}, {self.num} doses"
        by_amount: dict[float, list[str]] = {}
        for amount, time in zip(self.amounts, self.times, strict=True):
            by_amount.setdefault(amount, []).append(f"{time:g}")
        return "; ".join(f"{a:g}{unit} at {', '.join(t)}" for a, t in by_amount.items())

    @property
    def end(self) -> float | None:
        """One interval after the last dose; None for a single dose without an interval."""
        return None if self.interval is None else max(self.times) + self.interval

    def __add__(self, other: "Regimen") -> "Regimen":
        """Both regimens together, doses in the order of time."""
        if self.per != other.per:
            raise SettingError(
                f"Regimens per {self.per or 'individual'} and per {other.per or 'individual'} are "
                "added.",
                "regimens whose amounts have the same unit.",
                "use the same `per=` in both.",
            )
        columns = ("times", "amounts", "durations", "compartments", "steady_state")
        both = [getattr(self, name) + getattr(other, name) for name in columns]
        order = sorted(range(len(both[0])), key=lambda j: both[0][j])
        times, amounts, durations, compartments, steady = (
            tuple(column[j] for j in order) for column in both
        )
        interval = self.interval if self.interval == other.interval else None
        return Regimen(times, amounts, durations, compartments, steady, interval, self.per)

    def scaled(self, factor: float) -> "Regimen":
        """The same plan with all amounts multiplied by a factor."""
        check_number("factor", factor, 0)
        return replace(self, amounts=tuple(factor * x for x in self.amounts))

    def with_amount(self, amount: float) -> "Regimen":
        """The same plan with another amount of the last dose; the others (a loading dose) change in
        proportion.
        """
        if not self.amounts[-1] > 0:
            raise SettingError(
                "The last dose of the regimen has the amount 0.",
                "a positive amount, in proportion to which all doses change.",
                "pass for example `nlme.regimen(1.0, ...)`.",
            )
        return self.scaled(amount / self.amounts[-1])

    def at_steady_state(self) -> "Regimen":
        r"""One interval of the last dose at steady state.

        Raises:
            SettingError: The regimen has no interval.
        """
        if self.interval is None:
            raise SettingError(
                f"The regimen ({self.label}) has no dosing interval.",
                "an interval, which a steady state needs.",
                "pass `interval=` to `nlme.regimen`.",
            )
        last = slice(-1, None)
        columns = (self.amounts[last], self.durations[last], self.compartments[last])
        return Regimen((0.0,), *columns, (True,), self.interval, self.per)

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
            factor: Factor of the amounts, shape ``(individual,)`` or one number.

        Returns:
            Doses of shape ``(individual, dose)``.

        Raises:
            SettingError: The covariate ``per`` is missing.
        """
        factor = torch.as_tensor(factor, dtype=torch.float64).expand(num_individuals)
        if self.per is not None:
            known = dict(covariates or {})
            if self.per not in known:
                raise SettingError(
                    f"The amounts are per {self.per!r}, a covariate that the individuals lack.",
                    f"one of their covariates: {sorted(known)}.",
                    "correct `per=`, or give the covariate.",
                )
            factor = factor * known[self.per].double()

        def row(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).expand(num_individuals, -1).clone()

        begin = torch.as_tensor(start, dtype=torch.float64).expand(num_individuals).unsqueeze(1)
        steady = row(self.steady_state)
        return Doses(
            begin + row(self.times),
            factor.unsqueeze(1) * row(self.amounts),
            row(self.durations),
            row(self.compartments).long(),
            intervals=steady * (self.interval or 0.0),
            steady_state=steady.long(),
        )


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
    if interval is not None:
        check_number("interval", interval, 0, with_low=False)
    elif num > 1 or steady_state:
        raise SettingError(
            "A steady state has no dosing interval."
            if steady_state
            else f"{num} doses, but no dosing interval.",
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
