r"""The learning rate as a function of the progress of a training.

Progress s runs from 0 to 1: the share of the planned steps, or of the time budget. After a linear
rise over the first steps the rate is

.. math:: r(s) = \tfrac12\, r_{\max}\, (1 + \cos \pi s),

which is zero at s = 1. Where the validation loss no longer falls before that, the training cools
down: progress jumps to 0.8 and reaches 1 in a quarter of the steps made so far.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CoolDownSettings:
    r"""How a training ends early.

    Args:
        begin: Progress at which the cool-down begins; the rate is then a tenth of its peak.
        share: Length of the cool-down, as a share of the steps made before it.
        latest: Progress from which on a training is not cooled down, because it ends soon anyway.
    """

    begin: float = 0.8
    share: float = 0.25
    latest: float = 0.75


COOL_DOWN = CoolDownSettings()


@dataclass(frozen=True)
class RateSchedule:
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
        r"""Progress of the training, at most 1.

        Args:
            step: Number of steps made.
            share_of_time: Share of the time budget that is used; without a budget it is ignored.
        """
        planned = share_of_time if self.total_steps is None else step / self.total_steps
        if self.cooling_from is not None:
            length = max(1, int(COOL_DOWN.share * self.cooling_from))
            steps = step - self.cooling_from
            cooled = COOL_DOWN.begin + (1 - COOL_DOWN.begin) * steps / length
            planned = max(cooled, planned)
        return min(planned, 1.0)

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of a step at a progress."""
        warmup = self.warmup
        if self.total_steps is not None:
            warmup = min(warmup, self.total_steps // 10)
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return self.peak * rise * 0.5 * (1 + math.cos(math.pi * progress))
