r"""Figures of a calibration: ranks of simulated individuals, and recovery of their parameters."""

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import binom

from ..guide_calibration.calibration_result import Calibration
from ..guide_calibration.uniformity_tests import ecdf, simultaneous_band
from .panels import FITTED, MUTED, OBSERVED, label_axes, panel_grid, remove_frame


def rank_histogram(calibration: Calibration, *, num_bins: int = 20) -> Figure:
    r"""Histograms of the ranks: corrected in the first row, raw in the second.

    The grey band is the central 99 % of the counts that uniform ranks would give.

    Args:
        calibration: Result of :func:`~pyro_amortized.diagnostics.calibrate`.
        num_bins: Number of bins.
    """
    names = calibration.names
    figure = Figure(figsize=(2.6 * len(names) + 0.6, 4.6), layout="constrained")
    axes = figure.subplots(2, len(names), squeeze=False, sharex=True, sharey=True)
    num = len(calibration.ranks)
    low, high = (float(binom(num, 1 / num_bins).ppf(p)) for p in (0.005, 0.995))
    for row, (label, ranks) in enumerate(
        (("corrected", calibration.ranks), ("raw guide", calibration.raw_ranks))
    ):
        p_values = calibration.p_values(raw=row == 1)
        for column, name in enumerate(names):
            ax = axes[row][column]
            ax.axhspan(low, high, color=MUTED, alpha=0.25, lw=0)
            edges = torch.linspace(0, calibration.num_ranks + 1, num_bins + 1).numpy()
            ax.hist(
                ranks[:, column].numpy(), bins=edges, color=FITTED if row == 0 else MUTED, alpha=0.8
            )
            ax.set_title(f"{name}, {label}\np = {p_values[name]:.2f}", fontsize=9)
            ax.tick_params(labelsize=8)
            remove_frame(ax)
    figure.supxlabel(f"rank of the true value among {calibration.num_ranks} draws", fontsize=9)
    figure.supylabel("number of individuals", fontsize=9)
    return figure


def rank_bands(calibration: Calibration) -> Figure:
    r"""Distribution functions of the ranks less that of uniform ranks, raw and corrected.

    The grey band contains the whole curve of uniform ranks with probability 95 %.

    Args:
        calibration: Result of :func:`~pyro_amortized.diagnostics.calibrate`.

    References:
        Säilynoja, Bürkner, Vehtari (2022), Graphical test for discrete uniformity and its
        applications in goodness-of-fit evaluation and multiple sample comparison.
    """
    names = [*calibration.names, "all, jointly"]
    figure, axes = panel_grid(len(names), 4, 2.8, 2.5, sharex=True, sharey=True)
    points, low, high = simultaneous_band(len(calibration))
    jitter = np.random.default_rng(0).random(tuple(calibration.ranks.shape))
    for style, label, ranks, tarp in (
        ("--", "raw guide", calibration.raw_ranks, calibration.raw_tarp),
        ("-", "corrected", calibration.ranks, calibration.tarp),
    ):
        levels = (ranks.numpy() + jitter) / (calibration.num_ranks + 1)
        curves = ecdf(np.column_stack([levels, tarp.numpy()]), points)
        for j, (ax, name) in enumerate(zip(axes, names, strict=True)):
            color = FITTED if label == "corrected" else MUTED
            ax.plot(points, curves[:, j] - points, style, color=color, lw=1.4, label=label)
            label_axes(ax, "", "", name)
    for ax in axes:
        ax.fill_between(points, low - points, high - points, color=MUTED, alpha=0.2, lw=0)
    axes[0].legend(frameon=False, fontsize=7)
    figure.supxlabel("level: rank divided by the number of ranks", fontsize=9)
    figure.supylabel("distribution function less that of uniform ranks", fontsize=9)
    return figure


def recovery(calibration: Calibration) -> Figure:
    r"""Posterior means and standard deviations of simulated individuals against the true values.

    The titles give the correlation and the contraction of each parameter.

    Args:
        calibration: Result of :func:`~pyro_amortized.diagnostics.calibrate`.
    """
    figure, axes = panel_grid(len(calibration.names), 4, 2.8, 2.7)
    contraction, correlation = calibration.contraction(), calibration.recovery()
    for j, (ax, name) in enumerate(zip(axes, calibration.names, strict=True)):
        truth, mean, sd = (
            x[:, j].numpy() for x in (calibration.truth, calibration.means, calibration.sds)
        )
        ax.errorbar(truth, mean, sd, fmt="o", ms=2.5, lw=0.5, color=OBSERVED, ecolor=MUTED)
        ax.axline((float(truth.mean()), float(truth.mean())), slope=1, color=FITTED, lw=1)
        title = f"{name}\nr = {correlation[name]:.2f}, contraction {contraction[name]:.2f}"
        label_axes(ax, "true value", "posterior mean and standard deviation", title)
    return figure
