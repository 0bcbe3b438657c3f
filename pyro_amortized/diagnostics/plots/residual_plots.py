r"""Goodness of fit: observed against predicted, residuals, npde."""

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...population.fit_result import PopulationFit
from ...sampling.individuals import IndividualPosteriors
from ..residual_analysis import Residuals, residuals
from .style import FITTED, MUTED, OBSERVED, grid, labelled


def goodness_of_fit(
    result: PopulationFit | IndividualPosteriors | Residuals,
    *,
    series: str | None = None,
    seed: int = 0,
) -> Figure:
    r"""Observed against population and individual predictions; individual weighted residuals
    against time and prediction. Values at a limit of quantification are open triangles.

    Args:
        result: A fit, individual posteriors, or residuals that are there already.
        series: The series. Default: the model's first.
        seed: Seed of the simulations.

    Raises:
        CohortError: The model does not observe the series, or it has several channels.
    """
    r = result if isinstance(result, Residuals) else residuals(result, series=series, seed=seed)
    figure, axes = grid(4, 2, 4.0, 3.2)
    for ax, x, label in (
        (axes[0], r.population, "population prediction"),
        (axes[1], r.individual, "individual prediction"),
    ):
        _points(ax, x.numpy(), r.observed.numpy(), r)
        low, high = (float(f(np.nanmin(x), np.nanmin(r.observed))) for f in (min, max))
        high = float(max(np.nanmax(x), np.nanmax(r.observed)))
        ax.plot([low, high], [low, high], color=MUTED, lw=1)
        _trend(ax, x.numpy(), r.observed.numpy())
        labelled(ax, label, f"observed {r.series}")
    for ax, x, label in (
        (axes[2], r.times, "time"),
        (axes[3], r.individual, "individual prediction"),
    ):
        _points(ax, x.numpy(), r.iwres.numpy(), r)
        _levels(ax)
        _trend(ax, x.numpy(), r.iwres.numpy())
        labelled(ax, label, "individual weighted residual")
    return figure


def distribution_errors(
    result: PopulationFit | IndividualPosteriors | Residuals,
    *,
    series: str | None = None,
    seed: int = 0,
) -> Figure:
    r"""Normalised prediction distribution errors against time and prediction, their quantiles, and
    the shares ``pd``, which are uniform under the right model.

    Args:
        result: A fit, individual posteriors, or residuals that are there already.
        series: The series. Default: the model's first.
        seed: Seed of the simulations.

    Raises:
        CohortError: The model does not observe the series, or it has several channels.
    """
    r = result if isinstance(result, Residuals) else residuals(result, series=series, seed=seed)
    figure, axes = grid(4, 2, 4.0, 3.2)
    z = r.npde.numpy()
    for ax, x, label in (
        (axes[0], r.times, "time"),
        (axes[1], r.population, "population prediction"),
    ):
        _points(ax, x.numpy(), z, r)
        _levels(ax)
        _trend(ax, x.numpy(), z)
        labelled(ax, label, "npde")
    sorted_z = np.sort(z[np.isfinite(z)])
    share = (np.arange(len(sorted_z)) + 0.5) / len(sorted_z)
    axes[2].plot(scipy.stats.norm.ppf(share), sorted_z, "o", ms=3, color=OBSERVED)
    axes[2].axline((0, 0), slope=1, color=MUTED, lw=1)
    labelled(axes[2], "normal quantile", "npde")
    counts = np.histogram(r.pd.numpy(), 10, (0, 1))[0]
    low, high = scipy.stats.binom(len(r.pd), 0.1).ppf([0.025, 0.975])
    axes[3].axhspan(low, high, color=MUTED, alpha=0.25, lw=0)
    axes[3].bar(np.arange(10) / 10 + 0.05, counts, 0.09, color=FITTED)
    labelled(axes[3], "pd (band: 95 % of uniform)", "values")
    return figure


def _points(ax: Axes, x: np.ndarray, y: np.ndarray, r: Residuals) -> None:
    at = r.censored.numpy()
    ax.plot(x[~at], y[~at], "o", ms=3, color=OBSERVED, alpha=0.7)
    ax.plot(x[at], y[at], "v", ms=4, color=OBSERVED, mfc="none")


def _levels(ax: Axes) -> None:
    ax.axhline(0, color=MUTED, lw=1)
    for level in (-1.96, 1.96):
        ax.axhline(level, color=MUTED, lw=0.8, ls=":")


def _trend(ax: Axes, x: np.ndarray, y: np.ndarray, num: int = 8) -> None:
    """Medians in bins of equally many values, connected."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 2 * num:
        return
    order = np.array_split(np.argsort(x, kind="stable"), num)
    middle = [(float(np.median(x[part])), float(np.median(y[part]))) for part in order]
    ax.plot(*zip(*middle, strict=True), color=FITTED, lw=1.6)
