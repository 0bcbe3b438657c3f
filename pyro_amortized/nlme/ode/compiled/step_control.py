r"""The size of the steps: source lines that all compiled solvers share.

After a step of size h with error e (1 is the tolerance) the next size is that of a proportional and
integral controller,

.. math:: h' = h\, / \max\bigl(\tfrac1{10}, \min(5,\; e^{\alpha} / (0.9\, e_{-1}^{\beta}))\bigr) ,

where :math:`e_{-1}` is the error of the step before. A rejected step uses the proportional part
only. The solvers compute the powers in their own ways and pass them as expressions.

References:
    Hairer and Wanner (1996), Solving Ordinary Differential Equations II, IV.2 (controller and
    test for stiffness); Hairer, Norsett and Wanner (1993), part I, II.4 (first step).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .codes import SolverStatus


@dataclass(frozen=True)
class StepControl:
    r"""Constants of the controller and of the test for stiffness.

    Args:
        safety: Share of the step size that the error estimate allows; the usual value.
        max_decrease: A step is divided by at most this number; the usual value.
        max_increase: A step is multiplied by at most this number; the usual value.
        min_remainder: A step that would leave less than this share of itself before an event or
            the end is shortened to half of the way, which avoids a tiny last step.
        smallest: Smallest step relative to the time, near the resolution of double precision.
        not_finite: Factor on a step whose result is not finite.
        stiffness: Bound on the estimate of the spectral radius times the step; the boundary of the
            stability region of the method is near it.
        num_stiff: Steps above the bound after which a system counts as stiff.
        num_calm: Steps below the bound after which the count starts again.
    """

    safety: float = 0.9
    max_decrease: float = 5.0
    max_increase: float = 10.0
    min_remainder: float = 0.1
    smallest: float = 1e-14
    not_finite: float = 0.1
    stiffness: float = 10.5
    num_stiff: int = 15
    num_calm: int = 6


CONTROL = StepControl()


def choose_step(h: str, hits: str, stop: str) -> list[str]:
    """Lines that set ``step``, and whether it hits the next event or the end."""
    return [
        f"gap = {stop} - t",
        f"step = min({h}, gap)",
        f"{hits} = step >= gap",
        f"if not {hits} and gap - step < {CONTROL.min_remainder} * step:",
        "    step = 0.5 * gap",
    ]


def is_too_small(hits: str, stop: str) -> str:
    """Condition that a step is below the resolution of the time."""
    return f"not {hits} and step <= {CONTROL.smallest} * max(abs(t), abs({stop}))"


def after_not_finite(h: str, hits: str, stop: str) -> list[str]:
    """Lines that follow a step whose result is not finite."""
    smallest = f"{10 * CONTROL.smallest} * max(1.0, abs({stop} - t))"
    return [
        f"{h} = {CONTROL.not_finite} * step",
        f"{hits} = False",
        f"if {h} < {smallest}:",
        f"    code = {SolverStatus.NOT_FINITE}",
    ]


def after_rejection(h: str, power: str) -> str:
    """Line that follows a step whose error is too large."""
    return f"{h} = step / min({CONTROL.max_decrease}, {power} / {CONTROL.safety})"


def growth(power: str) -> str:
    """Line that sets ``grow``, the factor by which an accepted step is divided."""
    upper = f"min({CONTROL.max_decrease}, {power} / {CONTROL.safety})"
    return f"grow = max({1 / CONTROL.max_increase}, {upper})"


def after_acceptance(h: str, hits: str) -> list[str]:
    """Lines that set the next size; a step that an event shortened never makes it smaller."""
    return [
        f"if step >= {h} or not {hits}:",
        f"    {h} = step / grow",
        "else:",
        f"    {h} = max({h}, step / grow)",
    ]


def detect_stiffness(above: str, below: str, stiff: str, calm: str) -> list[str]:
    """Lines that count the steps at the boundary of the stability region."""
    return [
        f"if step * step * {above} > {CONTROL.stiffness} * {below} and {below} > 0.0:",
        f"    {stiff} += 1",
        f"    {calm} = 0",
        f"    if {stiff} >= {CONTROL.num_stiff}:",
        f"        code = {SolverStatus.STIFF}",
        "else:",
        f"    {calm} += 1",
        f"    if {calm} >= {CONTROL.num_calm}:",
        f"        {stiff} = 0",
    ]


def first_step(
    state: Sequence[str], slope: Sequence[str], change: Sequence[str], span: str, exponent: float
) -> list[str]:
    r"""Lines that set the first size ``h``.

    Args:
        state: Lines that sum the squares of the state, in units of the tolerance, into ``a``.
        slope: The same for the slope, into ``b``.
        change: The same for the slope in units of the tolerance after a step, into ``c``; the
            mean over the states.
        span: Expression of the time until the next event or the end.
        exponent: One over the order of the method.
    """
    return [
        *state,
        *slope,
        "h = 0.01 * math.sqrt(a / b) if a > 1e-10 and b > 1e-10 else 1e-6",
        *change,
        f"h = max(h, min(0.1 * {span}, (0.01 / math.sqrt(max(c, 1e-30))) ** {exponent}))",
        "if not (h < 1e300):",
        "    h = 1e-6",
    ]
