r"""Figures of residuals: observed against predicted values, weighted residuals, npde.

Lines are medians in bins of equally many values. In figures of npde, values at a limit of
quantification are open triangles: their ranks are drawn at random among the possible ones.
"""

import itertools

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...population.results.fit_result import PopulationFit
from ...sampling.individuals import IndividualPosteriors
from ..dose_intervals import GAPS
from ..measurements.residual_analysis import Residuals, residuals
from .panels import FITTED, MUTED, OBSERVED, label_axes, panel_grid, set_log

GAP_SHARE = 0.25  # part of an axis without values from which on a line may be broken


def goodness_of_fit(
    result: PopulationFit | IndividualPosteriors | Residuals,
    *,
    series: str | None = None,
    log: bool = False,
    seed: int = 0,
) -> Figure:
    r"""Observed values against predictions, and weighted residuals against predictions, time, and
    time after dose.

    Values at a limit of quantification are no observations and are not drawn; the title says how
    many there are.

    Args:
        result: A fit, individual posteriors, or residuals that were computed before.
        series: Name of the series. Default: the first series of the model.
        log: Logarithmic axes of observed values and predictions; values that are not positive are
            then not drawn.
        seed: Seed of the simulations.

    Raises:
        CohortError: The model does not observe the series, or it has several channels.
    """
    r = result if isinstance(result, Residuals) else residuals(result, series=series, seed=seed)
    figure, axes = panel_grid(6, 3, 3.6, 3.1)
    shown = np.where(r.censored.numpy(), np.nan, r.observed.numpy())
    for ax, predicted, label in (
        (axes[0], r.population.numpy(), "population prediction"),
        (axes[1], r.individual.numpy(), "individual prediction"),
    ):
        ax.plot(predicted, shown, "o", ms=3, color=OBSERVED, alpha=0.7)
        _draw_identity(ax, predicted, shown, log)
        _draw_trend(ax, predicted, shown)
        label_axes(ax, label, f"observed {r.series}")
    known = r.times_after_dose.isfinite()
    after_dose = bool((known & (r.times_after_dose != r.times)).any())  # not one dose at time 0
    for ax, x, label, y, kind in (
        (axes[2], r.individual, "individual prediction", r.iwres, "individual"),
        (axes[3], r.population, "population prediction", r.cwres, "conditional"),
        (axes[4], r.times, "time", r.cwres, "conditional"),
        (axes[5], r.times_after_dose, "time after dose", r.cwres, "conditional")
        if after_dose
        else (axes[5], r.times, "time", r.iwres, "individual"),
    ):
        ax.plot(x.numpy(), y.numpy(), "o", ms=3, color=OBSERVED, alpha=0.7)
        _draw_normal_range(ax)
        _draw_trend(ax, x.numpy(), y.numpy())
        if log and "prediction" in label:
            set_log(ax, "x")
        label_axes(ax, label, f"{kind} weighted residual")
    num = int(r.censored.sum())
    hidden = f" {num} values at a limit of quantification are not shown." if num else ""
    figure.suptitle(f"{r.series}. Red lines: medians in bins.{hidden}", fontsize=10)
    return figure


def _draw_identity(ax: Axes, x: np.ndarray, y: np.ndarray, log: bool) -> None:
    """The line of equal values, and the scales of both axes."""
    drawn = np.isfinite(y)
    both = np.concatenate([x[drawn], y[drawn]])
    known = both[np.isfinite(both) & ((both > 0) | (not log))]
    if log:
        set_log(ax, "xy")
    if len(known):
        ends = [float(known.min()), float(known.max())]
        ax.plot(ends, ends, color=MUTED, lw=1)


def distribution_errors(
    result: PopulationFit | IndividualPosteriors | Residuals,
    *,
    series: str | None = None,
    seed: int = 0,
) -> Figure:
    r"""Normalised prediction distribution errors against time and population prediction, their
    quantiles, and the prediction discrepancies ``pd``, which are uniform under the right model.

    Args:
        result: A fit, individual posteriors, or residuals that were computed before.
        series: Name of the series. Default: the first series of the model.
        seed: Seed of the simulations.

    Raises:
        CohortError: The model does not observe the series, or it has several channels.
    """
    r = result if isinstance(result, Residuals) else residuals(result, series=series, seed=seed)
    figure, axes = panel_grid(4, 2, 4.0, 3.2)
    z = r.npde.numpy()
    for ax, x, label in (
        (axes[0], r.times, "time"),
        (axes[1], r.population, "population prediction"),
    ):
        _draw_points(ax, x.numpy(), z, r)
        _draw_normal_range(ax)
        _draw_trend(ax, x.numpy(), z)
        label_axes(ax, label, "npde")
    sorted_z = np.sort(z[np.isfinite(z)])
    share = (np.arange(len(sorted_z)) + 0.5) / len(sorted_z)
    axes[2].plot(scipy.stats.norm.ppf(share), sorted_z, "o", ms=3, color=OBSERVED)
    axes[2].axline((0, 0), slope=1, color=MUTED, lw=1)
    label_axes(axes[2], "quantile of the normal distribution", "npde")
    draw_rank_histogram(axes[3], r.pd.numpy())
    label_axes(axes[3], "pd (band: 95 % if uniform)", "number of values")
    return figure


def draw_rank_histogram(ax: Axes, pd: np.ndarray, num_bins: int = 10) -> None:
    """Counts in bins, with the central 95 % of the counts of uniform numbers."""
    counts = np.histogram(pd, num_bins, (0, 1))[0]
    low, high = scipy.stats.binom(len(pd), 1 / num_bins).ppf([0.025, 0.975])
    ax.axhspan(low, high, color=MUTED, alpha=0.25, lw=0)
    ax.bar((np.arange(num_bins) + 0.5) / num_bins, counts, 0.9 / num_bins, color=FITTED)


def _draw_points(ax: Axes, x: np.ndarray, y: np.ndarray, r: Residuals) -> None:
    censored = r.censored.numpy()
    ax.plot(x[~censored], y[~censored], "o", ms=3, color=OBSERVED, alpha=0.7)
    ax.plot(x[censored], y[censored], "v", ms=4, color=OBSERVED, mfc="none")


def _draw_normal_range(ax: Axes) -> None:
    """Lines at zero and at the bounds of the central 95 % of a standard normal distribution."""
    ax.axhline(0, color=MUTED, lw=1)
    for level in (-1.96, 1.96):
        ax.axhline(level, color=MUTED, lw=0.8, ls=":")


def _draw_trend(ax: Axes, x: np.ndarray, y: np.ndarray, num: int = 8) -> None:
    """A line through the medians in bins of equally many values, if each has two or more; it is
    broken across gaps.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) < 2 * num:
        return
    order = np.argsort(x, kind="stable")
    for part in _joined(x[order]):
        bins = np.array_split(order[part], max(1, round(num * len(order[part]) / len(x))))
        medians = [(float(np.median(x[rows])), float(np.median(y[rows]))) for rows in bins]
        ax.plot(*zip(*medians, strict=True), color=FITTED, lw=1.6)


def _joined(x: np.ndarray) -> list[slice]:
    """Parts of sorted values that a line joins: between gaps that are a large part of the axis, and
    longer than what came before, as between two occasions.
    """
    cuts, since = [0], x[0]
    for j in np.flatnonzero(np.diff(x) > GAP_SHARE * (x[-1] - x[0])).tolist():
        if x[j + 1] - x[j] > GAPS.beside_course * (x[j] - since) and j + 1 - cuts[-1] > 1:
            cuts.append(j + 1)
            since = x[j + 1]
    return [slice(a, b) for a, b in itertools.pairwise([*cuts, len(x)])]
