r"""Data and fitted curves of each individual."""

from dataclasses import dataclass, replace

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...cohort import RECORDED, Cohort, Series
from ...model import ModelStructure
from ...population.results.fit_result import PopulationFit
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..result_selection import check_series, individuals_of, outcome_kinds, recorded_at_limit
from .panels import (
    FITTED,
    MUTED,
    OBSERVED,
    draw_band,
    label_axes,
    panel_grid,
    set_log_panels,
)


@dataclass(frozen=True)
class GridSettings:
    r"""Times at which curves are drawn.

    Args:
        shares_of_interval: Times after each dose, as parts of the interval to the next one: early
            ones for the absorption.
        moment: Time before a dose at which the curve lacks it, in rounding errors of the time.
        max_doses: Most doses with times of their own.
    """

    shares_of_interval: tuple[float, ...] = (0.01, 0.03, 0.06, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8)
    moment: float = 8.0
    max_doses: int = 100


GRID = GridSettings()


def individual_fits(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    num_draws: int = 300,
    num_times: int = 80,
    max_individuals: int = 24,
    log: bool = False,
    seed: int = 0,
) -> Figure:
    r"""Observations of each individual with its fitted curve.

    The line is the posterior median of the predicted mean, the dark band its central 90 %, the
    light band the central 90 % of new observations (residual error included; not drawn for
    categories), the dashed line the prediction with the typical parameters of the population.

    Args:
        result: A fit, or individual posteriors.
        series: Name of the series. Default: the first series of the model.
        num_draws: Posterior draws from which the bands are computed.
        num_times: Number of equidistant points of the curve; it also has points at the samples, and
            before, at and after each dose.
        max_individuals: Most individuals that are shown; the title says if there are more.
        log: Logarithmic vertical axis.
        seed: Seed of the draws.

    Raises:
        CohortError: The model does not observe the series, or the series has several channels.
    """
    individuals, name = individuals_of(result), check_series(individuals_of(result), series)
    structure, cohort = individuals.structure, individuals.cohort
    population, generator = individuals.population, make_generator(seed)
    num = min(len(cohort), max_individuals)
    draws = individuals.resampled(num_draws, generator)[:, :num]
    kinds = outcome_kinds(structure)
    fine = _on_fine_grid(cohort[:num], _series_on_grid(structure, name), num_times)
    mean = structure.predicted_mean(fine, draws, population)[name]
    predicted = structure.predict_draws(fine, draws, population, generator)[name]
    typical = structure.draw_individuals(fine, population, num_draws, generator).mean(0)
    of_population = structure.predicted_mean(fine, typical[None], population)[name][0]
    at_limit = recorded_at_limit(individuals, name)
    figure, axes = panel_grid(num, 4, 3.0, 2.3, sharey=True)
    for i, ax in enumerate(axes):
        times = fine[name].times[i].numpy()
        if kinds[name] != "category":  # a band of categories is nearly all of them
            draw_band(ax, times, predicted[:, i], 0.18)
        draw_band(ax, times, mean[:, i], 0.40)
        ax.plot(times, mean[:, i].median(0).values.numpy(), color=FITTED, lw=1.4)
        ax.plot(times, of_population[i].numpy(), color=MUTED, lw=1.0, ls="--")
        _draw_observations(ax, cohort[name], i, at_limit[i])
        label_axes(ax, "", "", f"individual {cohort.ids[i]}")
    if log:
        set_log_panels(axes, cohort[name])
    which = f" (first {num} of {len(cohort)})" if num < len(cohort) else ""
    _add_titles(figure, name, which, kinds[name] == "category", bool(at_limit[:num].any()))
    return figure


def _series_on_grid(structure: ModelStructure, shown: str) -> list[str]:
    """The series that a fine grid of times suits: neither events nor categories, whose order in
    time may be that of the data, except the recording of the others; none where such a series is
    shown.
    """
    kinds = outcome_kinds(structure)
    readers = {structure.observed[name].series for name in structure.readers}
    plain = [n for n in structure.series if kinds[n] in ("continuous", "count")]
    if shown not in plain or readers:
        return []
    return plain + [
        n for n in structure.series if n.removesuffix(RECORDED) in plain and n not in plain
    ]


def _add_titles(figure: Figure, name: str, more: str, is_category: bool, has_limits: bool) -> None:
    """What is drawn, in words; the mean of values 0 and 1 is the probability of a one."""
    triangles = " Open triangles: values at a limit of quantification." if has_limits else ""
    curves = "median, 90 % band of the mean, 90 % band of new observations"
    if is_category:
        curves = "median and 90 % band of the mean (of values 0 and 1: the probability of a 1)"
    figure.suptitle(
        f"Individual fits{more}: {curves}.\nDashed: population prediction.{triangles}", fontsize=10
    )
    figure.supxlabel("time", fontsize=9)
    figure.supylabel(name, fontsize=9)


def _draw_observations(ax: Axes, series: Series, row: int, at_limit: Tensor) -> None:
    """The recorded values of one individual; open triangles at a limit."""
    observed = series.observed[row]
    for cells, marker, face in (
        (observed & ~at_limit, "o", OBSERVED),
        (observed & at_limit, "v", "none"),
    ):
        x, y = (z[row][cells].numpy() for z in (series.times, series.values))
        ax.plot(x, y, marker, ms=3.5, color=OBSERVED, mfc=face)


def _on_fine_grid(cohort: Cohort, names: list[str], num_times: int) -> Cohort:
    """The same individuals on fine grids of times, each with its doses, samples and peaks."""
    all_series = dict(cohort.series)
    for name in names:
        series = cohort[name]
        rows = [_fine_times(cohort, name, i, num_times) for i in range(len(cohort))]
        width = max(len(row) for row in rows)
        times = torch.stack([torch.cat([x, x[-1:].expand(width - len(x))]) for x in rows])
        values = series.values[:, :1].expand(-1, width, *series.values.shape[2:])
        observed = torch.ones_like(values, dtype=torch.bool)
        all_series[name] = Series(times, values.contiguous(), observed)
    return replace(cohort, series=all_series)


def _fine_times(cohort: Cohort, name: str, row: int, num_times: int) -> Tensor:
    """Times of the curve of one individual, from the first dose or observation to the last
    observation: an equidistant grid, the samples, and for each dose its time, the moment before it,
    the end of its infusion, and some times until the next dose.
    """
    times = cohort[name].times[row]
    begin, end = times[0], times[-1]
    given = times[:0]
    durations = times[:0]
    if cohort.doses is not None:
        is_given = cohort.doses.given[row]
        given, order = cohort.doses.times[row][is_given].to(times.dtype).sort()
        durations = cohort.doses.durations[row][is_given][order].to(times.dtype)
        begin = torch.cat([begin[None], given]).min()
    steps = torch.linspace(0, 1, num_times, dtype=times.dtype)
    parts = [begin + (end - begin) * steps, times]
    given, durations = given[given <= end], durations[given <= end]
    if 0 < len(given) <= GRID.max_doses:
        gaps = torch.cat([given[1:], end[None]]) - given
        shares = torch.tensor(GRID.shares_of_interval, dtype=times.dtype)
        rounding = torch.finfo(times.dtype).eps * given.abs().clamp(min=1.0)
        before = given - GRID.moment * rounding
        parts += [given, before, given + durations]
        parts.append((given[:, None] + gaps[:, None] * shares).flatten())
    every = torch.cat(parts).unique()
    return every[(every >= begin) & (every <= end)]
