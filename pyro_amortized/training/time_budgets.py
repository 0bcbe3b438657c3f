r"""Time budgets of a training, as numbers or as text."""

import math
import re

from ..errors import TrainingError

SECONDS_PER_UNIT = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600}


def budget_seconds(budget: str | float | None) -> float | None:
    r"""A time budget in seconds.

    Args:
        budget: A number of seconds, a text, or None for no budget.

    Raises:
        TrainingError: It is not a positive number of seconds or a text like ``"5min"``.

    Example:
        >>> budget_seconds("1.5min"), budget_seconds("2 h"), budget_seconds(30)
        (90.0, 7200.0, 30.0)
    """
    if budget is None:
        return None
    text = budget if isinstance(budget, str) else f"{budget} s"
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]+?)s?\s*", text.lower())
    try:
        total = float(match[1]) * SECONDS_PER_UNIT[match[2]] if match is not None else 0.0
    except (KeyError, ValueError):
        total = 0.0
    if not 0 < total < math.inf:
        raise TrainingError(
            f"`budget` is {budget!r}.",
            'a positive number of seconds, or a text like "30s", "5min", "1.5h".',
            "correct the budget.",
        )
    return total


def used_share(elapsed: float, planned: float) -> float:
    r"""Share of a time budget that is used, at most 1.

    Args:
        elapsed: Seconds since the budget began.
        planned: Seconds of the budget; where none are left, all of it is used.

    Example:
        >>> used_share(3.0, 12.0), used_share(3.0, -1.0)
        (0.25, 1.0)
    """
    return min(1.0, elapsed / planned) if planned > 0 else 1.0
