r"""A figure of a model search: -2LL along the path, and how stable the choice of each term is."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...applications.model_search import ModelSearch
from .panels import FITTED, MUTED, OBSERVED, label_axes


def searched_path(search: ModelSearch) -> Figure:
    r"""The path of a model search.

    Left: -2LL of every model of the path; models that were fitted and refused hang beside it.
    Right: inclusion frequencies of all terms in bootstrapped cohorts, the chosen ones filled.

    Args:
        search: Result of :func:`~pyro_amortized.search`.
    """
    height = 0.26 * max(len(search.tests), len(search.path)) + 1.3
    figure = Figure(figsize=(10.5, max(height, 3.0)), layout="constrained")
    path, stability = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.1, 1.0]})
    _draw_path(path, search)
    _draw_frequencies(stability, search)
    return figure


def _draw_path(ax: Axes, search: ModelSearch) -> None:
    """One row per fitted model, from above to below."""
    fitted = [step for step in search.path if np.isfinite(step.minus2ll)]
    labels, line = [], []
    for row, step in enumerate(fitted):
        sign = {"add": "+ ", "remove": "- "}.get(step.action, "")
        labels.append(f"{sign}{step.term}" if step.term else "start")
        kind = "o" if step.accepted else "x"
        color = OBSERVED if step.accepted else MUTED
        error = step.mc_error if np.isfinite(step.mc_error) else 0.0
        ax.errorbar(step.minus2ll, -row, xerr=error, fmt=kind, color=color, ms=5, capsize=2)
        if step.accepted:
            line.append((step.minus2ll, -row))
    ax.plot(*zip(*line, strict=True), color=OBSERVED, lw=1)
    ax.plot([], [], "o-", color=OBSERVED, lw=1, ms=5, label="path")
    if any(not step.accepted for step in fitted):
        ax.plot([], [], "x", color=MUTED, ms=5, label="fitted, refused")
    ax.legend(frameon=False, fontsize=7)
    ax.set_yticks([-row for row in range(len(fitted))], labels)
    label_axes(ax, "-2 log likelihood", "", "models in the order in which they were fitted")


def _draw_frequencies(ax: Axes, search: ModelSearch) -> None:
    """One bar per term."""
    known = [test for test in search.tests if np.isfinite(test.frequency)]
    for row, test in enumerate(known):
        color = FITTED if test.included else "none"
        ax.barh(-row, test.frequency, color=color, edgecolor=FITTED, height=0.65)
    ax.set_yticks([-row for row in range(len(known))], [test.term for test in known])
    ax.set_xlim(0, 1.02)
    kinds = {FITTED: "in the model", "none": "not in the model"}
    patches = [Patch(facecolor=c, edgecolor=FITTED, label=text) for c, text in kinds.items()]
    if known:
        ax.legend(handles=patches, frameon=False, fontsize=7, loc="lower right")
    label_axes(ax, "part of bootstrapped cohorts", "", "inclusion frequencies")
