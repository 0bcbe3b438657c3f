r"""What all figures share: colours that differ in lightness too, quiet axes, grids of panels."""

import math
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

OBSERVED, FITTED, MUTED = "#1f2a44", "#c8553d", "#8a8f98"


def clean(ax: Axes) -> None:
    """No frame above and to the right, small labels."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def band(ax: Axes, x: Any, draws: Tensor, alpha: float) -> None:
    """Central 90 % of draws, shape ``(draw, point)``."""
    levels = torch.tensor([0.05, 0.95], dtype=draws.dtype)
    low, high = draws.quantile(levels, dim=0).numpy()
    ax.fill_between(x, low, high, color=FITTED, alpha=alpha, lw=0)


def grid(
    num: int,
    columns: int,
    width: float,
    height: float,
    *,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of ``num`` panels, at most so many in a row."""
    columns = max(1, min(columns, num))
    rows = math.ceil(num / columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.6), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).flat)
    for ax in axes[num:]:
        ax.set_visible(False)
    return figure, axes[:num]


def labelled(ax: Axes, x: str, y: str, title: str = "") -> None:
    """Labels and a quiet frame."""
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    if title:
        ax.set_title(title, fontsize=9)
    clean(ax)
