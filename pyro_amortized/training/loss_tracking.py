r"""Trackers: objects that record the losses while a guide is trained."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tracker(Protocol):
    r"""The interface of a tracker. The module ``mlflow`` has it without change; TensorBoard and
    W&B need the few lines of the page *Training*.
    """

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings of the run, once."""

    def log_metric(self, key: str, value: float, step: int) -> None:
        """A number at a step: ``training_loss``, ``validation_loss``, ``learning_rate``,
        ``num_pairs``.
        """
