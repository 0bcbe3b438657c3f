r"""Elements that all figures share: colours, grids of panels, axis labels, bands of draws.

The colours differ in lightness, too, so that they differ in black and white.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from ...cohort import Series
from ...errors import SettingError

TIME_AXES = ("time", "time after dose")
BAND = (0.05, 0.95)  # quantiles that bound a band: the central 90 %
MAX_VALUES = 1_000_000  # values from which quantiles are computed
LEGEND_WIDTH = 2.3  # inches of an entry of a legend below the panels
BELOW_VALUES = 3.0  # a logarithmic axis ends at the smallest value over this
OBSERVED, FITTED, MUTED = "#1f2a44", "#c8553d", "#8a8f98"


def check_time_axis(x: str) -> None:
    """Raise unless a horizontal axis is the time, or the time after a dose."""
    if x not in TIME_AXES:
        raise SettingError(f"`x` is {x!r}.", f"one of {TIME_AXES}.", "correct `x=`.")


def remove_frame(ax: Axes) -> None:
    """Remove the lines above and on the right of a panel, and make its tick labels small."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def thinned(values: Tensor) -> Tensor:
    """Every value, or equally spaced ones of very many: torch refuses quantiles of 16 million."""
    return values[:: -(-len(values) // MAX_VALUES)]


def draw_band(ax: Axes, x: Any, draws: Tensor, alpha: float) -> None:
    r"""Fill the central 90 % of draws.

    Args:
        ax: The panel.
        x: Points of the horizontal axis, shape ``(point,)``.
        draws: Shape ``(draw, point)``.
        alpha: Opacity between 0 and 1.
    """
    levels = torch.tensor(BAND, dtype=draws.dtype)
    low, high = draws.quantile(levels, dim=0).numpy()
    ax.fill_between(x, low, high, color=FITTED, alpha=alpha, lw=0)


def panel_grid(
    num: int,
    columns: int,
    width: float,
    height: float,
    *,
    sharex: bool = False,
    sharey: bool | Literal["row"] = False,
) -> tuple[Figure, list[Axes]]:
    r"""A figure of ``num`` panels.

    Args:
        num: Number of panels.
        columns: Most panels in a row.
        width: Width of a panel in inches.
        height: Height of a panel in inches.
        sharex: Whether panels have a common horizontal axis.
        sharey: Whether panels have a common vertical axis; ``"row"``: those of a row.
    """
    columns = max(1, min(columns, num))
    rows = math.ceil(num / columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.6), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).flat)
    for ax in axes[num:]:
        ax.set_visible(False)
    return figure, axes[:num]


def label_axes(ax: Axes, x: str, y: str, title: str = "") -> None:
    """Set the axis labels and the title of a panel, and remove its frame."""
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    if title:
        ax.set_title(title, fontsize=9)
    remove_frame(ax)


def set_log_panels(panels: Sequence[Axes], series: Series | None) -> None:
    """Logarithmic vertical axes that end a little below the values of a series, because curves may
    fall far below. To be called when all panels are drawn: a limit ends the automatic scale of
    those that share an axis.
    """
    for ax in panels:
        set_log(ax)
    if series is not None and bool((positive := series.observed & (series.values > 0)).any()):
        smallest = float(series.values[positive].min()) / BELOW_VALUES
        for ax in panels:
            ax.set_ylim(bottom=smallest)


def set_log(ax: Axes, axes: str = "y") -> None:
    """Logarithmic axes (``"x"``, ``"y"`` or ``"xy"``) with plain numbers at 1, 2 and 5."""
    for name in axes:
        axis = getattr(ax, f"{name}axis")
        getattr(ax, f"set_{name}scale")("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def add_legend(figure: Figure, axes: list[Axes]) -> None:
    """A legend below all panels, with each label once."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    columns = max(1, int(figure.get_figwidth() / LEGEND_WIDTH))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=7,
    )
