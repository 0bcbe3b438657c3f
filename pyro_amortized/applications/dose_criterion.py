r"""What makes a dose the best one: a probability of the target, or an expected loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType

from torch import Tensor

from ..errors import SettingError
from ..runtime.arguments import check_is, check_number
from .targets import Target

DoseLoss = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class DoseCriterion:
    r"""What a dose is chosen by. Made by :meth:`of`, which checks it.

    Args:
        target: What the dose should reach.
        probability: Wanted probability of the target, or None.
        loss: Loss as a function of the metric whose mean is minimised, or None for a probability.
    """

    target: Target
    probability: float | None
    loss: DoseLoss | None

    @classmethod
    def of(
        cls, target: Target, probability: float | None, loss: DoseLoss | None
    ) -> "DoseCriterion":
        r"""The criterion of the arguments of a user; that of a target value is a squared logarithm.

        Raises:
            SettingError: They do not belong together, or a criterion is missing.
        """
        check_is("target", target, Target, "pass for example `Target.auc(low=400, high=600)`.")
        if probability is not None:
            check_number("probability", probability, 0, 1, with_low=False, with_high=False)
            if loss is not None:
                raise SettingError(
                    "`loss` and `probability` are given together.",
                    "a probability of a range, or a loss.",
                    "leave one of them out.",
                )
            if target.low is None and target.high is None:
                raise SettingError(
                    f"`probability` is given for the target ({target.label}), which has no range.",
                    "a probability of a range, or a loss.",
                    "give the target `low=` or `high=`, or leave `probability=` out.",
                )
            return cls(target, probability, None)
        if loss is not None:
            if not callable(loss):
                check_is("loss", loss, FunctionType, "pass a function of the metric, a tensor.")
            return cls(target, None, loss)
        if target.value is not None:
            return cls(target, None, _squared_log_loss(target.value))
        if target.low is None or target.high is None:
            raise SettingError(
                f"The target ({target.label}) has one end, and no criterion.",
                "a probability with which it should be reached, or a loss.",
                "pass for example `probability=0.9`.",
            )
        return cls(target, None, None)

    @property
    def is_range(self) -> bool:
        """Whether the target has both ends."""
        return self.target.low is not None and self.target.high is not None

    @property
    def label(self) -> str:
        """The criterion in a few words."""
        if self.loss is not None:
            return "smallest expected loss"
        if self.is_range:
            wanted = "" if self.probability is None else f" (wanted: {self.probability:g})"
            return f"largest probability{wanted}"
        return f"probability {self.probability:g}"

    def losses(self, metric: Tensor) -> Tensor:
        r"""The loss of every draw, in float64.

        Args:
            metric: Values of the metric, of any shape.

        Raises:
            SettingError: It is not a finite tensor of the shape of the metric.
        """
        assert self.loss is not None
        values = self.loss(metric)
        ok = isinstance(values, Tensor) and values.shape == metric.shape
        if not (ok and bool(values.isfinite().all())):
            is_tensor = isinstance(values, Tensor)
            found = (
                f"a tensor of shape {tuple(values.shape)}" if is_tensor else type(values).__name__
            )
            raise SettingError(
                f"The loss returned {found}{' with values that are not finite' if ok else ''}.",
                f"a finite loss for every value, shape {tuple(metric.shape)}.",
                "write the loss with torch functions, element by element.",
            )
        return values.double()


def _squared_log_loss(value: float) -> DoseLoss:
    """The squared logarithm of metric / value: a factor too much counts as one too little."""

    def loss(metric: Tensor) -> Tensor:
        return (metric.clamp(min=1e-300).log() - math.log(value)).square()

    return loss
