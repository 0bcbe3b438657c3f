r"""Figures of the data before any model: courses of the individuals, and covariates."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.stats
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from torch import Tensor

from ...cohort import Cohort, Series
from ...errors import CohortError
from ...runtime.arguments import check_is
from ..dose_intervals import dose_times, time_after_dose, with_breaks
from ..result_selection import values_at_limits
from .panels import (
    FITTED,
    MUTED,
    OBSERVED,
    add_legend,
    check_time_axis,
    label_axes,
    panel_grid,
    set_log,
)
from .strata import strata_of

MAX_DOSES = 60  # times of doses that are marked; more make a bar
# Most different values, all of them whole, of a series whose points would lie on each other: they
# are moved apart by up to this part of the step between values, and their mean is shown.
MAX_CATEGORIES, APART = 8, 0.35
MAX_MEANS = 40  # most different times whose means are a line


def observations(
    cohort: Cohort,
    *,
    series: str | None = None,
    stratify: str | None = None,
    x: str = "time",
    log: bool = False,
) -> Figure:
    r"""The recorded values of all individuals over time, one line per individual.

    Categories and small counts are moved apart, and a line shows their mean over time: the share of
    ones where values are 0 and 1. Lines of the others are broken where a dose lies in a long gap
    without values. Short marks at the lower edge
    are the times of doses. Values at a limit of quantification (``<series>_low`` or
    ``<series>_high`` among the covariates that vary over time) are open triangles.

    Args:
        cohort: The data.
        series: Name of a series. Default: one panel for each series of one channel.
        stratify: Name of a covariate: one panel for each of its values, or for each half of the
            individuals if it has more than six values.
        x: ``"time"``, or ``"time after dose"``: values before the first dose are then left out, and
            lines join the values of one interval between doses.
        log: Logarithmic vertical axis.

    Raises:
        CohortError: The cohort has no such series or covariate.
        SettingError: ``x`` is something else.

    Example:
        ``plots.observations(cohort, stratify="ARM", log=True).savefig("data.png")``
    """
    check_is("cohort", cohort, Cohort, "pass what `nlme.read_table` gives.")
    check_time_axis(x)
    names = [n for n, s in cohort.series.items() if s.values.dim() == 2]
    if series is not None and series not in names:
        raise CohortError(
            f"The series {series!r} cannot be shown.",
            f"a series of one channel, one of {names}.",
            "pass its name as `series=`.",
        )
    if not names:
        raise CohortError(
            f"The cohort has no series of one channel, only {list(cohort.series)}.",
            "values over time.",
            "draw events with a fit, `plots.event_curves(fit)`.",
        )
    strata = strata_of(cohort, stratify)
    shown = names if series is None else [series]
    columns = max(2, len(strata))
    sharey: Literal["row"] | bool = "row" if len(strata) > 1 else False
    figure, axes = panel_grid(len(shown) * len(strata), columns, 5.0, 3.2, sharey=sharey)
    for k, name in enumerate(shown):
        for j, (label, members) in enumerate(strata.items()):
            ax = axes[k * len(strata) + j]
            _draw_courses(ax, cohort, name, members, x)
            if log:
                set_log(ax)
            count = f"{int(members.sum())} individuals"
            label_axes(ax, x, name, f"{label}, {count}" if label else count)
    add_legend(figure, axes)
    return figure


def _draw_courses(ax: Axes, cohort: Cohort, name: str, members: Tensor, x: str) -> None:
    """One line per individual, its values, and the times of doses."""
    series, after = cohort[name], x == "time after dose"
    times = time_after_dose(cohort, name) if after else series.times
    at_limit = values_at_limits(cohort, name)
    for i in members.nonzero()[:, 0].tolist():
        cells = series.observed[i] & times[i].isfinite()
        own_times, values = times[i][cells].numpy(), series.values[i][cells].numpy()
        if _is_category(series):
            continue
        if after:
            parts = np.split(np.arange(len(values)), np.flatnonzero(np.diff(own_times) < 0) + 1)
            for part in parts:
                ax.plot(own_times[part], values[part], color=MUTED, lw=0.6, alpha=0.5)
        elif len(values):
            own = dose_times(cohort[i])
            ax.plot(*with_breaks(own_times, values, own), color=MUTED, lw=0.6, alpha=0.5)
    shown = series.observed & members.unsqueeze(1) & times.isfinite()
    recorded = "recorded value, moved apart" if _is_category(series) else "recorded value"
    for cells, marker, face, label in (
        (shown & ~at_limit, "o", OBSERVED, recorded),
        (shown & at_limit, "v", "none", "at a limit of quantification"),
    ):
        if bool(cells.any()):
            points = (times[cells].numpy(), _apart(series)[cells].numpy())
            ax.plot(*points, marker, ms=3, color=OBSERVED, mfc=face, alpha=0.7, label=label)
    if _is_category(series):
        _draw_means(ax, times[shown], series.values[shown])
        ax.set_yticks(series.values[series.observed].unique().tolist())
    doses = dose_times(cohort, members)
    if not after and 0 < len(doses) <= MAX_DOSES:
        places = (doses, np.full(len(doses), 0.01))
        transform = ax.get_xaxis_transform()
        ax.plot(*places, "|", ms=6, color=FITTED, transform=transform, label="dose")


def _is_category(series: Series) -> bool:
    """Whether a series has few different values, all of them whole."""
    values = series.values[series.observed].unique()
    return 1 < len(values) <= MAX_CATEGORIES and bool((values == values.round()).all())


def _apart(series: Series) -> Tensor:
    """The values; categories are moved apart by the number of the individual."""
    if not _is_category(series):
        return series.values
    offset = torch.linspace(-APART, APART, len(series.values), dtype=series.values.dtype)
    return series.values + offset.unsqueeze(1)


def _draw_means(ax: Axes, times: Tensor, values: Tensor) -> None:
    """The mean of the values at each time, where times are common."""
    known, place = times.unique(return_inverse=True)
    if 1 < len(known) <= MAX_MEANS:
        total = values.new_zeros(2, len(known)).index_add(
            1, place, torch.stack([values, torch.ones_like(values)])
        )
        mean = (total[0] / total[1]).numpy()
        ax.plot(known.numpy(), mean, color=FITTED, lw=1.5, label="mean of the values")


def covariates(cohort: Cohort) -> Figure:
    r"""Distribution of the covariates of a cohort, and each pair of them.

    The diagonal has histograms; below it each pair is shown with its rank correlation.

    Args:
        cohort: The data.

    Raises:
        CohortError: There are no covariates.
    """
    check_is("cohort", cohort, Cohort, "pass what `nlme.read_table` gives.")
    names = list(cohort.covariates)
    if not names:
        raise CohortError(
            "The cohort has no covariates.",
            "a cohort with at least one covariate.",
            "pass `covariates=[...]` to `nlme.read_table`.",
        )
    values = [cohort.covariates[name].double().numpy() for name in names]
    figure, axes = panel_grid(len(names) ** 2, len(names), 2.4, 2.2)
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            ax = axes[i * len(names) + j]
            if j > i:
                ax.set_visible(False)
            elif i == j:
                named = cohort.categories.get(row, ())
                edges = [k - 0.5 for k in range(len(named) + 1)]
                ax.hist(values[i], bins=edges if named else 12, color=MUTED, alpha=0.7)
                label_axes(ax, row, "individuals")
            else:
                ax.plot(values[j], values[i], "o", ms=3, color=OBSERVED, alpha=0.7)
                label_axes(ax, column, row, f"rank correlation {_rank_correlation(values, i, j)}")
                _name_categories(ax.yaxis, cohort.categories.get(row, ()))
            _name_categories(ax.xaxis, cohort.categories.get(column, ()))
    return figure


def _name_categories(axis: Axis, names: Sequence[str]) -> None:
    """Names in place of the numbers of categories."""
    if names:
        axis.set_ticks(range(len(names)), names)


def _rank_correlation(values: list[np.ndarray], i: int, j: int) -> str:
    """Spearman's correlation as text; nothing where a covariate is constant."""
    if min(np.ptp(values[i]), np.ptp(values[j])) == 0 or len(values[i]) < 3:
        return "-"
    return f"{scipy.stats.spearmanr(values[i], values[j]).statistic:.2f}"
