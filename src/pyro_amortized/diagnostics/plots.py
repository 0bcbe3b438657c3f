r"""Figures: individual fits with bands, training curve, ranks.

Every function returns a ``matplotlib.figure.Figure`` and leaves pyplot's state alone;
``figure.savefig(path)``. matplotlib comes with the extra ``pyro-amortized[plots]``.
"""

import math
import textwrap
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure
from scipy.stats import binom
from torch import Tensor

from ..cohort import Cohort, Series
from ..errors import CohortError
from ..history import TrainingHistory
from ..individual import IndividualPosteriors
from ..isolation import make_generator
from ..result import PopulationFit
from .calibration import Calibration

OBSERVED, FITTED, MUTED = "#1f2a44", "#c8553d", "#8a8f98"


def individual_fits(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    num_draws: int = 300,
    num_times: int = 80,
    max_individuals: int = 24,
    seed: int = 0,
) -> Figure:
    r"""Observations of every individual with its fitted curve.

    The line is the posterior median of the predicted mean, the dark band its central 90 %, the
    light band the central 90 % of new observations (residual error included).

    Args:
        result: A fit, or individual posteriors.
        series: The series to show. Default: the model's first.
        num_draws: Posterior draws behind the bands.
        num_times: Points of the curve.
        max_individuals: Show at most this many individuals; the title says if there are more.
        seed: Seed of the draws.

    Raises:
        CohortError: The model does not observe the series, or the series has several channels.
    """
    individuals = result.individuals if isinstance(result, PopulationFit) else result
    structure, cohort = individuals.structure, individuals.cohort
    series = series or structure.series[0]
    if series not in structure.series or cohort[series].values.dim() != 2:
        raise CohortError(
            f"The series {series!r} cannot be shown.",
            f"a series of one channel that the model observes, of {structure.series}.",
            "pass `series=`.",
        )
    shown = min(len(cohort), max_individuals)
    generator = make_generator(seed)
    picked = individuals.resampled(num_draws, generator)[:, :shown]
    dense = _dense(cohort[:shown], structure.series, num_times)
    mean = structure.predicted_mean(dense, picked, individuals.population)[series]
    predicted = structure.predict_draws(dense, picked, individuals.population, generator)[series]
    columns = min(4, shown)
    rows = math.ceil(shown / columns)
    figure = Figure(figsize=(3.0 * columns, 2.3 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for i, ax in enumerate(axes.flat):
        if i >= shown:
            ax.set_visible(False)
            continue
        times = dense[series].times[i].numpy()
        _band(ax, times, predicted[:, i], 0.18)
        _band(ax, times, mean[:, i], 0.40)
        ax.plot(times, mean[:, i].median(0).values.numpy(), color=FITTED, lw=1.4)
        seen = cohort[series].observed[i]
        ax.plot(
            cohort[series].times[i][seen].numpy(),
            cohort[series].values[i][seen].numpy(),
            "o",
            ms=3.5,
            color=OBSERVED,
        )
        ax.set_title(f"individual {cohort.ids[i]}", fontsize=9)
        ax.tick_params(labelsize=8)
        _clean(ax)
    more = f" (first {shown} of {len(cohort)})" if shown < len(cohort) else ""
    figure.suptitle(
        f"Individual fits{more}: median, 90 % band of the mean, 90 % band of observations",
        fontsize=10,
    )
    figure.supxlabel("time", fontsize=9)
    figure.supylabel(series, fontsize=9)
    return figure


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
    _clean(ax)
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
            _clean(ax)
    figure.supxlabel(f"rank of the true value among {calibration.num_ranks} draws", fontsize=9)
    figure.supylabel("individuals", fontsize=9)
    return figure


def _dense(cohort: Cohort, names: list[str], num_times: int) -> Cohort:
    """The same individuals on a fine grid of times, from the first event to the last
    observation.
    """
    series = dict(cohort.series)
    for name in names:
        s = cohort[name]
        first = s.times[:, :1]
        if cohort.doses is not None:
            given = torch.where(cohort.doses.given, cohort.doses.times, torch.inf).amin(
                1, keepdim=True
            )
            first = torch.minimum(first, given)
        grid = first + (s.times[:, -1:] - first) * torch.linspace(
            0, 1, num_times, dtype=s.times.dtype
        )
        values = s.values[:, :1].expand(-1, num_times, *s.values.shape[2:])
        series[name] = Series(grid, values.contiguous(), torch.ones_like(values, dtype=torch.bool))
    return replace(cohort, series=series)


def _band(ax: Any, times: Any, draws: Tensor, alpha: float) -> None:
    low, high = draws.quantile(torch.tensor([0.05, 0.95], dtype=draws.dtype), dim=0).numpy()
    ax.fill_between(times, low, high, color=FITTED, alpha=alpha, lw=0)


def _clean(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
