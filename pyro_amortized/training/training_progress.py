r"""The state of a training that a checkpoint keeps besides the weights."""

import math
from dataclasses import dataclass, field


@dataclass
class TrainingProgress:
    """The state of a training besides its weights; a checkpoint holds it as JSON.

    ``epoch`` and ``position`` are the place of the next shard; ``stalled`` counts the checks
    without a better loss, and ``best_check`` is the number of the check with the best one;
    ``elapsed`` and ``planned`` are seconds of training, before this process began and in the
    budget; ``running_total`` and ``running_count`` give the mean training loss since the last
    check.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    num_pairs: int = 0
    num_skipped: int = 0
    cooling_from: int | None = None
    stalled: int = 0
    best_check: int = 0
    best_loss: float = math.inf
    elapsed: float = 0.0
    planned: float | None = None
    running_total: float = 0.0
    running_count: int = 0
    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: str = ""
