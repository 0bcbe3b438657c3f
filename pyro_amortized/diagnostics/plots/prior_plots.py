r"""Observations that the prior of a model can produce, beside the data."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...cohort import Cohort, Series
from ..dose_intervals import dose_times, with_breaks
from ..model_check import ModelCheck, share_text
from .panels import FITTED, OBSERVED, label_axes, panel_grid, thinned

MAX_LINES = 60  # simulated individuals that are drawn as lines; more hide each other


def prior_predictive(check: ModelCheck) -> Figure:
    r"""Data and individuals simulated from the prior, one panel per series of one channel.

    Lines are single simulated individuals, the dashed lines enclose the central 95 % of all
    simulated values, and circles are the data. The vertical axis covers the data and that band.

    Args:
        check: Result of :func:`~pyro_amortized.diagnostics.check_model`.
    """
    names = [n for n in check.structure.series if check.cohort[n].values.dim() == 2]
    figure, axes = panel_grid(len(names), 2, 5.0, 3.4)
    for name, ax in zip(names, axes, strict=True):
        series, simulated = check.cohort[name], check.predictive[name]
        _draw_lines(ax, check.cohort, name, simulated)
        ax.plot(
            series.times[series.observed],
            series.values[series.observed],
            "o",
            ms=3,
            color=OBSERVED,
            mfc="none",
        )
        _draw_range(ax, series, simulated)
        inside = f"{share_text(check.inside[name])} of the data lie inside the central 95 %"
        label_axes(ax, "time", name, inside)
    figure.suptitle(
        "Prior predictive distribution:\nsimulated individuals (lines) and data (circles)",
        fontsize=10,
    )
    return figure


def _draw_lines(ax: Axes, cohort: Cohort, name: str, simulated: Tensor) -> None:
    """One individual of each draw, broken where a dose lies in a long gap. The individuals are
    taken from the whole table, which may be sorted by treatment.
    """
    series = cohort[name]
    num = min(MAX_LINES, len(simulated))
    for k in range(num):
        i = k * len(series.times) // num
        observed = series.observed[i]
        times, values = series.times[i][observed].numpy(), simulated[k, i][observed].numpy()
        if len(times):
            line = with_breaks(times, values, dose_times(cohort[i]))
            ax.plot(*line, color=FITTED, lw=0.6, alpha=0.3)


def _draw_range(ax: Axes, series: Series, simulated: Tensor) -> None:
    """Dashed lines around the central 95 % of the simulated values."""
    values = simulated[:, series.observed].flatten()
    values = values[values.isfinite()]
    if not len(values):
        return
    levels = torch.tensor([0.025, 0.975], dtype=values.dtype)
    low, high = thinned(values).quantile(levels).tolist()
    for x in (low, high):
        ax.axhline(x, color=FITTED, lw=1.0, ls="--")
    recorded = series.values[series.observed]
    lowest, highest = min(low, float(recorded.min())), max(high, float(recorded.max()))
    margin = 0.05 * (highest - lowest)
    ax.set_ylim(lowest - margin, highest + margin)
