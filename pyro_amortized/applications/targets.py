r"""Targets of a dose: a metric of the prediction, and the range or value that it should have."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..errors import SettingError
from ..nlme.regimens import Regimen
from ..runtime.arguments import check_number
from .exposure import Exposure, panels

TargetKind = Literal["auc", "average", "peak", "trough", "smallest", "concentration", "time above"]
METRIC_OF = {"auc": "auc", "average": "average", "peak": "cmax", "smallest": "cmin"}


@dataclass(frozen=True)
class Target:
    r"""What a dose should reach. Made by its class methods, for instance ``Target.auc(low=400)``.

    Args:
        kind: The metric.
        low: Smallest value that is wanted, or None.
        high: Largest value that is wanted, or None.
        value: The value that is aimed at, for an expected loss, or None.
        window: Begin and end of the window, and whether it lies at steady state.
        at: Time of the concentration, counted from the begin of the regimen.
        threshold: Threshold of the time above it.
        quantity: Name of the predicted quantity. Default: the first series.

    Raises:
        SettingError: No range and no value is given, or the range is empty.

    Example:
        >>> Target.trough(low=10.0, high=20.0)
        Target(trough between 10 and 20)
    """

    kind: TargetKind
    low: float | None = None
    high: float | None = None
    value: float | None = None
    window: Exposure = field(default_factory=Exposure)
    at: float | None = None
    threshold: float | None = None
    quantity: str | None = None

    def __post_init__(self) -> None:
        ends = {"low": self.low, "high": self.high, "value": self.value}
        for name, x in ends.items():
            if x is not None:
                check_number(name, x, -torch.inf)
        if all(x is None for x in ends.values()):
            raise SettingError(
                f"The target ({self.kind}) has neither a range nor a value.",
                "`low=`, `high=`, both, or `value=`.",
                "pass for example `Target.auc(low=400, high=600)`.",
            )
        if self.low is not None and self.high is not None and not self.high > self.low:
            raise SettingError(
                f"The target range goes from {self.low:g} to {self.high:g}.",
                "a high end above the low one.",
                "exchange `low=` and `high=`.",
            )

        if self.threshold is not None:
            for name, x in ends.items():
                if x is not None and not 0 <= x <= 1:
                    raise SettingError(
                        f"`{name}` is {x:g} for the share of the time above {self.threshold:g}.",
                        "a share of the window between 0 and 1, no percentage and no time.",
                        f"correct `{name}=`, for example `Target.time_above(5, low=0.5)`.",
                    )

    def __repr__(self) -> str:
        return f"Target({self.label})"

    @property
    def label(self) -> str:
        """The target in a few words."""
        name = self.kind if self.at is None else f"{self.kind} at {self.at:g}"
        name = name if self.threshold is None else f"share of the time above {self.threshold:g}"
        if self.low is not None and self.high is not None:
            return f"{name} between {self.low:g} and {self.high:g}"
        if self.low is not None:
            return f"{name} at least {self.low:g}"
        if self.high is not None:
            return f"{name} at most {self.high:g}"
        return f"{name} near {self.value:g}"

    @classmethod
    def auc(
        cls,
        low: float | None = None,
        high: float | None = None,
        *,
        value: float | None = None,
        window: Exposure | None = None,
        quantity: str | None = None,
    ) -> "Target":
        """Area under the prediction over the window; default: the last dosing interval."""
        return cls("auc", low, high, value, window or Exposure(), quantity=quantity)

    @classmethod
    def average(
        cls,
        low: float | None = None,
        high: float | None = None,
        *,
        value: float | None = None,
        window: Exposure | None = None,
        quantity: str | None = None,
    ) -> "Target":
        """Average of the prediction over the window."""
        return cls("average", low, high, value, window or Exposure(), quantity=quantity)

    @classmethod
    def peak(
        cls,
        low: float | None = None,
        high: float | None = None,
        *,
        value: float | None = None,
        window: Exposure | None = None,
        quantity: str | None = None,
    ) -> "Target":
        """Largest prediction in the window."""
        return cls("peak", low, high, value, window or Exposure(), quantity=quantity)

    @classmethod
    def trough(
        cls,
        low: float | None = None,
        high: float | None = None,
        *,
        value: float | None = None,
        window: Exposure | None = None,
        quantity: str | None = None,
    ) -> "Target":
        """Prediction at the end of the window, just before the next dose."""
        return cls("trough", low, high, value, window or Exposure(), quantity=quantity)

    @classmethod
    def smallest(
        cls,
        low: float | None = None,
        high: float | None = None,
        *,
        value: float | None = None,
        window: Exposure | None = None,
        quantity: str | None = None,
    ) -> "Target":
        """Smallest prediction in the window."""
        return cls("smallest", low, high, value, window or Exposure(), quantity=quantity)

    @classmethod
    def concentration(
        cls,
        at: float,
        low: float | None = None,
        high: float | None = None,
        *,
        value: float | None = None,
        steady_state: bool = False,
        quantity: str | None = None,
    ) -> "Target":
        """Prediction at a time, counted from the begin of the regimen (from a dose at steady state
        if wanted).
        """
        check_number("at", at, -torch.inf)
        window = Exposure(steady_state=steady_state)
        return cls("concentration", low, high, value, window, at=float(at), quantity=quantity)

    @classmethod
    def time_above(
        cls,
        threshold: float,
        low: float | None = None,
        high: float | None = None,
        *,
        value: float | None = None,
        window: Exposure | None = None,
        quantity: str | None = None,
    ) -> "Target":
        """Share of the window, between 0 and 1, in which the prediction is above a threshold."""
        check_number("threshold", threshold, -torch.inf)
        exposure = window or Exposure()
        return cls("time above", low, high, value, exposure, None, float(threshold), quantity)

    def regimen_of(self, regimen: Regimen) -> Regimen:
        """The regimen under which the metric is computed."""
        if not self.window.steady_state:
            return regimen
        if self.at is not None:
            return regimen.at_steady_state(self.at, math.nextafter(self.at, math.inf))
        return regimen.at_steady_state(*self.window.window(regimen))

    def nodes(self, regimen: Regimen) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""Times at which the prediction is needed, and the metric of the values there.

        Args:
            regimen: A regimen, that of :meth:`regimen_of`.

        Returns:
            Times, shape ``(time,)``, and a function of values ``(*, time)`` that returns ``(*,)``.
        """
        if self.at is not None:
            return torch.tensor([self.at], dtype=torch.float64), lambda x: x[..., 0]
        low, high = self.window.window(regimen)
        divided = panels((low, high), regimen)
        if self.kind == "trough":
            return divided.nodes[-1:], lambda x: x[..., 0]
        if self.threshold is not None:
            threshold, length = self.threshold, high - low
            return divided.nodes, lambda x: divided.time_above(x, threshold) / length
        name = METRIC_OF[self.kind]
        return divided.nodes, lambda x: divided.metrics(x, None)[name]

    def inside(self, metric: Tensor) -> Tensor:
        """Whether values of the metric lie in the range, same shape."""
        ok = torch.ones_like(metric, dtype=torch.bool)
        if self.low is not None:
            ok &= metric >= self.low
        if self.high is not None:
            ok &= metric <= self.high
        return ok
