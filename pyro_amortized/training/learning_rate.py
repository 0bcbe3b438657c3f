r"""The learning rate as a function of progress.

Progress runs from 0 to 1: the share of the steps that are planned, or of the time budget. The rate
rises over the first steps and follows a cosine that reaches zero exactly at 1. Where data and not
time turn out to be the limit (the validation loss no longer falls), what is left of the cosine is
compressed: progress jumps to 0.8 and runs to 1 in a quarter of the steps done so far.
"""

import math
from dataclasses import dataclass

LATE = 0.8


@dataclass(frozen=True)
class Schedule:
    r"""Learning rate and progress.

    Args:
        peak: Largest learning rate.
        warmup: Steps over which the rate rises, at most a tenth of the planned ones.
        total_steps: Planned steps, or None under a time budget.
        cooling_from: Step at which the cool-down began, or None.
    """

    peak: float
    warmup: int
    total_steps: int | None
    cooling_from: int | None = None

    def progress(self, step: int, share_of_time: float) -> float:
        """Share of the training that is over, at most 1."""
        planned = share_of_time if self.total_steps is None else step / self.total_steps
        if self.cooling_from is not None:
            length = max(1, self.cooling_from // 4)
            cooled = LATE + (1 - LATE) * (step - self.cooling_from) / length
            planned = max(cooled, planned)
        return min(planned, 1.0)

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of a step."""
        warmup = self.warmup
        if self.total_steps is not None:
            warmup = min(warmup, self.total_steps // 10)
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return self.peak * rise * 0.5 * (1 + math.cos(math.pi * progress))
