r"""Training and calibration: curve, ranks, bands, recovery, the battery."""

import textwrap

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import binom

from ...guide.training_history import TrainingHistory
from ..calibration_result import Calibration
from ..diagnosis import Diagnosis
from ..uniformity_tests import ecdf, simultaneous_band
from .style import FITTED, MUTED, OBSERVED, clean, grid, labelled


def training_curve(history: TrainingHistory) -> Figure:
    r"""Training and validation loss at every check, with the one whose weights were kept, and the
    learning rate.
    """
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    ax = figure.subplots()
    losses = history.training_loss, history.validation_loss
    times = history.seconds or list(range(1, len(losses[0]) + 1))
    ax.plot(times, losses[0], color=MUTED, label="training")
    ax.plot(times, losses[1], color=FITTED, label="validation (averaged weights)")
    if losses[1]:
        best = history.best_epoch
        ax.plot(times[best], losses[1][best], "o", color=OBSERVED, label="kept")
        high = torch.tensor(losses[1][min(2, len(losses[1]) - 1) :]).max()
        low = min(losses[1])
        ax.set_ylim(
            low - 0.15 * (float(high) - low + 0.05), float(high) + 0.1 * (float(high) - low)
        )
    rate = ax.twinx()
    rate.plot(times, history.learning_rate, color=MUTED, lw=0.8, ls=":")
    rate.set_ylabel("learning rate (dotted)", fontsize=8, color=MUTED)
    rate.tick_params(labelsize=7, colors=MUTED)
    rate.set_ylim(bottom=0)
    rate.spines[["top", "left"]].set_visible(False)
    ax.set_xlabel("seconds" if history.seconds else "epoch")
    ax.set_ylabel("mean of -log q, nats")
    ax.set_title(
        f"{history.num_simulations:,} simulations, {history.num_steps:,} steps, "
        f"{history.training_seconds:.0f} s; {history.stopped}\n"
        + "\n".join(textwrap.wrap(history.advice, 90)),
        fontsize=8,
    )
    ax.legend(frameon=False, fontsize=8)
    clean(ax)
    return figure


def rank_histogram(calibration: Calibration, *, num_bins: int = 20) -> Figure:
    r"""Histograms of the ranks, corrected above raw, with the central 99 % of what uniform ranks
    would give.

    Args:
        calibration: From :func:`~pyro_amortized.diagnostics.calibrate`.
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
            clean(ax)
    figure.supxlabel(f"rank of the true value among {calibration.num_ranks} draws", fontsize=9)
    figure.supylabel("individuals", fontsize=9)
    return figure


def rank_bands(calibration: Calibration) -> Figure:
    r"""Distribution functions of the ranks less that of uniform ones, raw and corrected, with the
    band that holds a whole curve with probability 95 %.

    Args:
        calibration: From :func:`~pyro_amortized.diagnostics.calibrate`.

    References:
        Säilynoja, Bürkner, Vehtari (2022), Graphical test for discrete uniformity and its
        applications in goodness-of-fit evaluation and multiple sample comparison.
    """
    names = [*calibration.names, "all, jointly"]
    figure, axes = grid(len(names), 4, 2.8, 2.5, sharex=True, sharey=True)
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
            labelled(ax, "", "", name)
    for ax in axes:
        ax.fill_between(points, low - points, high - points, color=MUTED, alpha=0.2, lw=0)
    axes[0].legend(frameon=False, fontsize=7)
    figure.supxlabel("share of the ranks", fontsize=9)
    figure.supylabel("distribution function less uniform", fontsize=9)
    return figure


def recovery(calibration: Calibration) -> Figure:
    r"""Posterior means of simulated individuals against the truth, with contraction.

    Args:
        calibration: From :func:`~pyro_amortized.diagnostics.calibrate`.
    """
    figure, axes = grid(len(calibration.names), 4, 2.8, 2.7)
    contraction, correlation = calibration.contraction(), calibration.recovery()
    for j, (ax, name) in enumerate(zip(axes, calibration.names, strict=True)):
        truth, mean, sd = (
            x[:, j].numpy() for x in (calibration.truth, calibration.means, calibration.sds)
        )
        ax.errorbar(truth, mean, sd, fmt="o", ms=2.5, lw=0.5, color=OBSERVED, ecolor=MUTED)
        ax.axline((float(truth.mean()), float(truth.mean())), slope=1, color=FITTED, lw=1)
        title = f"{name}\nr = {correlation[name]:.2f}, contraction {contraction[name]:.2f}"
        labelled(ax, "truth", "posterior mean and sd", title)
    return figure


def battery(found: Diagnosis) -> Figure:
    r"""The checks as a list with their figures, in words.

    Args:
        found: From :func:`~pyro_amortized.diagnostics.diagnose`.
    """
    signs = {"passed": ("o", MUTED), "look": ("D", OBSERVED), "failed": ("X", FITTED)}
    figure = Figure(figsize=(9.0, 0.36 * len(found.checks) + 0.9), layout="constrained")
    ax = figure.subplots()
    for j, check in enumerate(found.checks):
        marker, color = signs[check.status]
        ax.plot(0.0, -j, marker, ms=7, color=color)
        ax.text(0.03, -j, f"{check.name}: {check.status}", va="center", fontsize=9)
        words = textwrap.shorten(check.words, 92, placeholder=" ...")
        ax.text(0.42, -j, words, va="center", fontsize=8, color=OBSERVED)
    ax.set_xlim(-0.02, 1.35)
    ax.set_ylim(-len(found.checks) + 0.4, 0.6)
    ax.axis("off")
    figure.suptitle(found.verdict.splitlines()[0], fontsize=10)
    return figure
