r"""Bands of simulated individuals under dosing regimens, beside the exposure."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...applications import Simulation
from ...errors import SettingError
from ...runtime.arguments import check_is, check_number
from .panels import FITTED, MUTED, OBSERVED, label_axes, panel_grid, thinned

MAX_INDIVIDUALS = 12  # seen individuals with a panel each


def simulated_bands(
    simulation: Simulation,
    *,
    level: float = 0.9,
    metric: str | None = None,
    by_individual: bool = False,
    limit: float | None = None,
) -> Figure:
    r"""Median and central bands over time, one panel per regimen, and the exposure by regimen.

    The dark band is that of predictions, the light one that of observations, with residual error.

    Args:
        simulation: Result of :func:`~pyro_amortized.simulate`.
        level: Probability of the bands.
        metric: Metric of the exposure in the last panel. Default: AUC.
        by_individual: One panel for each seen individual (at most twelve) in place of regimens; the
            regimen is the first.
        limit: A horizontal line, for instance a threshold or a limit of quantification. Default:
            the threshold of the exposure.

    Raises:
        SettingError: There is no such metric.
    """
    check_is("simulation", simulation, Simulation, "pass what `simulate` gives.")
    check_number("level", level, 0, 1, with_low=False, with_high=False)
    metric = metric or next(iter(simulation.exposures))
    if metric not in simulation.exposures:
        raise SettingError(
            f"There is no metric {metric!r}.",
            f"one of {list(simulation.exposures)}.",
            "correct `metric=`.",
        )
    limit = simulation.exposure.above if limit is None else limit
    kinds = [(False, 0.45)]
    if simulation.observation is not None:
        kinds = [(True, 0.2), (False, 0.45)]
    names = list(simulation.ids[:MAX_INDIVIDUALS]) if by_individual else list(simulation.regimens)
    figure, axes = panel_grid(len(names) + 1, 4, 3.2, 2.8)
    for noisy, alpha in kinds:
        bands = simulation.bands(level, residual_error=noisy, by_individual=by_individual)
        bands = bands[bands["regimen"] == simulation.regimens[0]] if by_individual else bands
        column = bands["individual"] if by_individual else bands["regimen"]
        for name, ax in zip(names, axes, strict=False):
            part = bands[column == name]
            ax.fill_between(
                part["time"], part["low"], part["high"], color=FITTED, alpha=alpha, lw=0
            )
            if not noisy:
                ax.plot(part["time"], part["median"], color=OBSERVED, lw=1.4)
    for name, ax in zip(names, axes, strict=False):
        if limit is not None:
            ax.axhline(limit, color=MUTED, lw=1.0, ls="--")
        label_axes(ax, "time", simulation.quantity, str(name))
    _draw_exposures(axes[-1], simulation, metric)
    return figure


def _draw_exposures(ax: Axes, simulation: Simulation, metric: str) -> None:
    """Boxes of an exposure metric by regimen: central half, median, central 90 %."""
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    boxes = []
    for name in simulation.regimens:
        values = simulation.exposures[metric][name].double().flatten()
        values = values[values.isfinite()]
        low, q1, middle, q3, high = thinned(values).quantile(levels).tolist()
        boxes.append(
            {"whislo": low, "q1": q1, "med": middle, "q3": q3, "whishi": high, "label": name}
        )
    ax.bxp(boxes, showfliers=False, orientation="horizontal", medianprops={"color": FITTED})
    label_axes(ax, metric.replace("_", " "), "", "exposure: 90 %, half, median")
