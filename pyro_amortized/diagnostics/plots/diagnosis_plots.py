r"""The checks of a diagnosis as a figure."""

import textwrap

from matplotlib.figure import Figure

from ..diagnosis import Diagnosis
from .panels import FITTED, MUTED, OBSERVED

LINE_LENGTH, MAX_LINES = 92, 2  # of the words of a check; longer words are shortened


def battery(diagnosis: Diagnosis) -> Figure:
    r"""The checks as a list, each with its status and its result in words.

    Args:
        diagnosis: Result of :func:`~pyro_amortized.diagnostics.diagnose`.
    """
    signs = {"passed": ("o", MUTED), "look": ("D", OBSERVED), "failed": ("X", FITTED)}
    checks = diagnosis.checks
    figure = Figure(figsize=(9.6, 0.44 * len(checks) + 0.9), layout="constrained")
    ax = figure.subplots()
    for j, check in enumerate(checks):
        marker, color = signs[check.status]
        ax.plot(0.0, -j, marker, ms=7, color=color)
        ax.text(0.03, -j, f"{check.name}: {check.status}", va="center", fontsize=9)
        lines = textwrap.wrap(check.words, LINE_LENGTH, max_lines=MAX_LINES, placeholder=" ...")
        ax.text(0.56, -j, "\n".join(lines), va="center", fontsize=8, color=OBSERVED)
    ax.set_xlim(-0.02, 1.51)
    ax.set_ylim(-len(checks) + 0.4, 0.6)
    ax.axis("off")
    figure.suptitle(diagnosis.verdict.splitlines()[0], fontsize=10)
    return figure
