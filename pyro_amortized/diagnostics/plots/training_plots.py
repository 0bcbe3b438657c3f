r"""The curve of a training: losses and learning rate over time."""

import textwrap

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...guide.training_history import TrainingHistory
from .panels import FITTED, MUTED, OBSERVED, remove_frame


def training_curve(history: TrainingHistory) -> Figure:
    r"""Training loss, validation loss and learning rate at every check of a training.

    The loss is the mean of -log q in nats. A point marks the check whose weights were kept. The
    title says why the training ended and what is advised.

    Args:
        history: The history of a guide, ``guide.history``.
    """
    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    ax = figure.subplots()
    training, validation = history.training_loss, history.validation_loss
    times = history.seconds or list(range(1, len(training) + 1))
    ax.plot(times, training, color=MUTED, label="training")
    ax.plot(times, validation, color=FITTED, label="validation (averaged weights)")
    if validation:
        best = history.best_check
        ax.plot(times[best], validation[best], "o", color=OBSERVED, label="kept weights")
        # The first checks are left out of the vertical range, because their loss is much larger.
        high = float(torch.tensor(validation[min(2, len(validation) - 1) :]).max())
        low = min(validation)
        ax.set_ylim(low - 0.15 * (high - low + 0.05), high + 0.1 * (high - low))
    _draw_learning_rate(ax, times, history)
    ax.set_xlabel("time in seconds" if history.seconds else "check")
    ax.set_ylabel("mean of -log q in nats")
    ax.set_title(
        f"{history.num_simulations:,} simulations, {history.num_steps:,} steps, "
        f"{history.training_seconds:.0f} s; {history.stopped}\n"
        + "\n".join(textwrap.wrap(history.advice, 90)),
        fontsize=8,
    )
    ax.legend(frameon=False, fontsize=8)
    remove_frame(ax)
    return figure


def _draw_learning_rate(ax: Axes, times: list[float], history: TrainingHistory) -> None:
    """The learning rate on a vertical axis of its own, on the right."""
    rate = ax.twinx()
    rate.plot(times, history.learning_rate, color=MUTED, lw=0.8, ls=":")
    rate.set_ylabel("learning rate (dotted)", fontsize=8, color=MUTED)
    rate.tick_params(labelsize=7, colors=MUTED)
    rate.set_ylim(bottom=0)
    rate.spines[["top", "left"]].set_visible(False)
