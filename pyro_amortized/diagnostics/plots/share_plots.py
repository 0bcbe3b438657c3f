r"""Predictive checks of categories: their shares over time beside those of simulated cohorts."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...population.results.fit_result import PopulationFit
from ...runtime.arguments import check_count
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..measurements.simulated_recording import as_would_be_recorded
from ..result_selection import check_series, individuals_of
from .panels import BAND, FITTED, OBSERVED, add_legend, label_axes, panel_grid
from .strata import strata_of
from .time_bins import equal_bins, natural_bins

MAX_ROWS = 4  # panels below each other; more are in two columns
MAX_CATEGORIES = 8  # rows of panels; further categories are shown together


def category_shares(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    stratify: str | None = None,
    num_bins: int | None = None,
    num_simulations: int = 500,
    seed: int = 0,
) -> Figure:
    r"""Share of each category, or of each count, over time: of the data (line) and of cohorts
    simulated from the population (band, central 90 %).

    Args:
        result: A fit, or individual posteriors.
        series: Name of the series. Default: the first series of the model.
        stratify: Name of a covariate: one column of panels for each of its values, or for each half
            of the individuals if it has more than six values.
        num_bins: Number of bins with about equally many values. Default: bins that end in the gaps
            between the times of the data.
        num_simulations: Number of simulated cohorts.
        seed: Seed of the simulations.

    Raises:
        CohortError: The cohort has no such series or covariate.
        SettingError: A number is outside its range.
    """
    if num_bins is not None:
        check_count("num_bins", num_bins)
    check_count("num_simulations", num_simulations)
    individuals, generator = individuals_of(result), make_generator(seed)
    name, cohort = check_series(individuals, series), individuals.cohort
    structure, population = individuals.structure, individuals.population
    strata = strata_of(cohort, stratify)
    draws = structure.draw_individuals(cohort, population, num_simulations, generator)
    every = structure.predict_draws(cohort, draws, population, generator)
    simulated, planned = as_would_be_recorded(cohort, name, every)
    data = cohort[name]
    times = data.times[data.observed].numpy()
    edges = natural_bins(times, len(cohort)) if num_bins is None else equal_bins(times, num_bins)
    bins = torch.as_tensor(np.digitize(data.times.numpy(), edges))
    levels = _levels(data.values[data.observed], simulated[simulated.isfinite() & planned])
    columns = len(strata) if len(strata) > 1 else (2 if len(levels) > MAX_ROWS else 1)
    number = len(levels) * len(strata)
    figure, axes = panel_grid(number, columns, 4.6, 2.0, sharex=True, sharey="row")
    for k, (label, low, high) in enumerate(levels):
        for j, (title, members) in enumerate(strata.items()):
            ax = axes[k * len(strata) + j]
            shown = [x & members.unsqueeze(1) for x in (data.observed, planned)]
            inside = [(x >= low) & (x <= high) for x in (data.values, simulated)]
            level = torch.where(simulated.isnan(), torch.nan, inside[1].double())
            _draw_share(ax, data.times, (shown[0], shown[1]), bins, (inside[0].double(), level))
            is_last = k * len(strata) + j >= number - columns
            words = f"share of {label}" if j == 0 else ""
            label_axes(ax, "time" if is_last else "", words, title if k == 0 else "")
            ax.set_ylim(-0.03, 1.03)
    add_legend(figure, axes)
    return figure


def _levels(observed: Tensor, simulated: Tensor) -> list[tuple[str, float, float]]:
    """Label, smallest and largest value of each row of panels. The second of two categories says
    everything about the first one.
    """
    found = sorted({*observed.unique().tolist(), *simulated.unique().tolist()})
    if len(found) == 2:
        found = found[1:]
    shown = found[:MAX_CATEGORIES] if len(found) <= MAX_CATEGORIES else found[: MAX_CATEGORIES - 1]
    levels = [(f"{x:g}", x, x) for x in shown]
    if len(found) > len(shown):
        levels.append((f"{found[len(shown)]:g} or more", found[len(shown)], np.inf))
    return levels


def _draw_share(
    ax: Axes,
    times: Tensor,
    shown: tuple[Tensor, Tensor],
    bins: Tensor,
    inside: tuple[Tensor, Tensor],
) -> None:
    """The share of values in one level in each bin, and the band of the simulations, each with the
    places that it has.
    """
    rows = []
    for b in bins.unique().tolist():
        cells, places = (x & (bins == b) for x in shown)
        if not bool(cells.any()):
            continue
        of_data, of_cohorts = inside[0][cells].mean(), inside[1][:, places].nanmean(1)
        low, high = (float(of_cohorts.nanquantile(q)) for q in BAND)
        rows.append((float(times[cells].median()), float(of_data), low, high))
    if not rows:
        return
    columns = np.array(rows).T
    x, share, lower, upper = columns
    if len(rows) == 1:  # one time: a bar and a point, no line over times that do not exist
        height = upper - lower
        ax.bar(x, height, 0.3, lower, color=FITTED, alpha=0.35, lw=0, label="90 % of simulations")
        ax.plot(x, share, "o", ms=5, color=OBSERVED, label="data")
        ax.set_xlim(float(x[0]) - 1, float(x[0]) + 1)
        ax.set_xticks([float(x[0])])
        return
    ax.fill_between(x, lower, upper, color=FITTED, alpha=0.35, lw=0, label="90 % of simulations")
    ax.plot(x, share, "o-", ms=3, color=OBSERVED, lw=1.3, label="data")
