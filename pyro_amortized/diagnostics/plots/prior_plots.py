r"""What a program can produce before it has seen the data, beside the data."""

import torch
from matplotlib.figure import Figure

from ..model_check import ModelCheck
from .style import FITTED, OBSERVED, grid, labelled

MAX_LINES = 60
MAX_KNOWN = 1_000_000  # simulated values behind the band


def prior_predictive(check: ModelCheck) -> Figure:
    r"""Data over cohorts simulated from the prior, one panel per series.

    Lines are single simulated individuals, the dashed lines the central 95 % of all of them, points
    the data. The vertical axis shows the data and that band.

    Args:
        check: What :func:`~pyro_amortized.diagnostics.check_model` found.
    """
    names = [n for n in check.structure.series if check.cohort[n].values.dim() == 2]
    figure, axes = grid(len(names), 2, 5.0, 3.4)
    for name, ax in zip(names, axes, strict=True):
        series, simulated = check.cohort[name], check.predictive[name]
        num = min(MAX_LINES, len(simulated))
        for k in range(num):  # individuals from the whole table, which may be sorted by arm
            i = k * len(series.times) // num
            seen = series.observed[i]
            ax.plot(series.times[i][seen], simulated[k, i][seen], color=FITTED, lw=0.6, alpha=0.3)
        seen = series.observed
        known = simulated[:, seen].flatten()
        known = known[known.isfinite()]
        ax.plot(series.times[seen], series.values[seen], "o", ms=3, color=OBSERVED, mfc="none")
        if len(known):
            levels = torch.tensor([0.025, 0.975], dtype=known.dtype)
            low, high = known[:: -(-len(known) // MAX_KNOWN)].quantile(levels).tolist()
            for x in (low, high):
                ax.axhline(x, color=FITTED, lw=1.0, ls="--")
            lowest = min(low, float(series.values[seen].min()))
            highest = max(high, float(series.values[seen].max()))
            margin = 0.05 * (highest - lowest)
            ax.set_ylim(lowest - margin, highest + margin)
        labelled(ax, "time", name, f"{100 * check.inside[name]:.0f} % of the data inside 95 %")
    figure.suptitle(
        "Prior predictive: simulated individuals (lines) and data (circles)", fontsize=10
    )
    return figure
