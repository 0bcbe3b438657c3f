r"""A regimen in a few words, as names of results and tables have it."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .regimens import Regimen


def regimen_label(regimen: "Regimen") -> str:
    """Amounts, times, durations of infusion and compartments, where the latter are not 0 and 1."""
    text = _doses(regimen)
    for word, values, usual in (
        ("over", regimen.durations, 0.0),
        ("into", regimen.compartments, 1),
    ):
        if any(x != usual for x in values):
            shown = values[:1] if len(set(values)) == 1 else values
            text += f", {word} " + " ".join(f"{x:g}" for x in shown)
    return text


def _doses(regimen: "Regimen") -> str:
    """Amounts and times."""
    unit = f" per {regimen.per}" if regimen.per else ""
    amounts, times, interval = regimen.amounts, regimen.times, regimen.interval
    begin = f" from {times[0]:g} on" if times[0] else ""
    if regimen.steady_state[0] and regimen.num == 1:
        return f"{amounts[0]:g}{unit} every {interval:g}{begin}, steady state"
    same_gaps = all(math.isclose(b - a, interval or 0.0) for a, b in pairwise(times))
    regular = same_gaps and len(set(amounts[1:])) == 1 and not any(regimen.steady_state)
    if regular and regimen.num > 2:
        loading = "" if amounts[0] == amounts[1] else f"{amounts[0]:g}, then "
        return f"{loading}{amounts[1]:g}{unit} every {interval:g}{begin}, {regimen.num} doses"
    by_amount: dict[str, list[str]] = {}
    for amount, time, steady in zip(amounts, times, regimen.steady_state, strict=True):
        key = f"{amount:g}{unit}" + (f" every {interval:g}, steady state," if steady else "")
        by_amount.setdefault(key, []).append(f"{time:g}")
    return "; ".join(f"{key} at {', '.join(t)}" for key, t in by_amount.items())
