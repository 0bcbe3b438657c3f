r"""Figures of events: survival curves, numbers of events over time, and residuals."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure, Population, site_values
from ...population.results.fit_result import PopulationFit
from ...runtime.arguments import check_count
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..events.event_residuals import EventResiduals, event_name, event_residuals
from ..result_selection import individuals_of
from .panels import BAND, FITTED, MUTED, OBSERVED, add_legend, label_axes, panel_grid
from .residual_plots import draw_rank_histogram
from .strata import strata_of

NUM_POINTS = 120  # times at which curves are computed


def event_curves(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    stratify: str | None = None,
    num_simulations: int = 500,
    seed: int = 0,
) -> Figure:
    r"""Share of individuals without an event over time, by the estimator of Kaplan and Meier, of
    the data (line, marks where the observation of an individual ends) and of cohorts simulated from
    the population (band, central 90 %); for events that recur the mean number of events. An
    individual that enters late is at risk from its entry on.

    Simulated individuals are followed until the planned end, so that the band says nothing about
    the reasons of an earlier end.

    Args:
        result: A fit, or individual posteriors.
        series: Name of the series. Default: the first series of events.
        stratify: Name of a covariate: one panel for each of its values, or for each half of the
            individuals if it has more than six values.
        num_simulations: Number of simulated cohorts.
        seed: Seed of the simulations.

    Raises:
        CohortError: The model has no such series of events, or the cohort no such covariate.
        SettingError: A number is outside its range.

    References:
        Kaplan, Meier (1958), Nonparametric estimation from incomplete observations. Nelson (1995),
        Confidence limits for recurrence data.
    """
    check_count("num_simulations", num_simulations)
    individuals, generator = individuals_of(result), make_generator(seed)
    structure, cohort = individuals.structure, individuals.cohort
    name = event_name(structure, series)
    population = individuals.population
    draws = structure.draw_individuals(cohort, population, num_simulations, generator)
    simulated = structure.predict_draws(cohort, draws, population, generator)[name]
    data, known = cohort[name].values.double(), cohort[name].observed.all(-1)
    begin = entries_of(structure, cohort, draws[:1], population, name)
    recurs = data.shape[1] > 1
    curve = mean_events if recurs else survival
    strata = strata_of(cohort, stratify)
    figure, axes = panel_grid(len(strata), len(strata), 6.4 if len(strata) == 1 else 4.4, 3.2)
    for j, (label, members) in enumerate(strata.items()):
        rows = members & known[:, 0]
        if not bool(rows.any()):
            continue
        grid = torch.linspace(0.0, float(data[rows, :, 0].max()), NUM_POINTS, dtype=torch.float64)
        here = known[rows], grid, begin[rows]
        of_cohorts = torch.stack([curve(x[rows], *here) for x in simulated.double()])
        low, high = (of_cohorts.quantile(q, dim=0).numpy() for q in BAND)
        draw_curve(axes[j], grid, curve(data[rows], *here), (low, high))
        if not recurs:
            _mark_censored(axes[j], data[rows], known[rows], begin[rows])
        words = "mean number of events" if recurs else f"without {name}"
        label_axes(axes[j], "time", words if j == 0 else "", label)
        axes[j].set_ylim(bottom=0.0, top=None if recurs else 1.03)
    add_legend(figure, axes)
    return figure


def survival(values: Tensor, known: Tensor, grid: Tensor, begin: Tensor | None = None) -> Tensor:
    r"""The Kaplan-Meier estimate of the share without a first event.

    Args:
        values: Times and status, shape ``(individual, event, 2)``.
        known: Whether they were recorded, shape ``(individual, event)``.
        grid: Times, shape ``(time,)``.
        begin: Time of entry of each individual, who is at risk from then on, shape
            ``(individual,)``. Default: the begin.

    Example:
        >>> values = torch.tensor([[[1.0, 1.0]], [[2.0, 0.0]], [[3.0, 1.0]]])
        >>> survival(values, torch.ones(3, 1).bool(), torch.tensor([0.5, 1.0, 3.0]))
        tensor([1.0000, 0.6667, 0.0000])
    """
    times, happened = values[:, 0, 0], values[:, 0, 1] > 0
    events = times[happened].sort().values
    at_risk = number_at_risk(events, times, begin)
    # Several events at one time are one factor, 1 - d / n: each of them lowers the risk set.
    earlier = torch.arange(len(events)) - torch.searchsorted(events, events)
    factors = 1 - 1 / (at_risk - earlier).clamp(min=1).to(values.dtype)
    share = torch.cat([values.new_ones(1), factors.cumprod(0)])
    return share[torch.searchsorted(events, grid.contiguous(), right=True)]


def number_at_risk(events: Tensor, ends: Tensor, begin: Tensor | None) -> Tensor:
    """Number of individuals that are observed at each time, shape ``(event,)``: of those whose end
    is not earlier, those who have entered before. No end is earlier than its entry.
    """
    observed = _not_earlier(ends, events)
    if begin is not None:
        observed = observed - _not_earlier(begin, events)
    return observed.clamp(min=1)


def _not_earlier(times: Tensor, events: Tensor) -> Tensor:
    """Number of times that are not earlier than each event, shape ``(event,)``."""
    return len(times) - torch.searchsorted(times.sort().values, events.contiguous())


def mean_events(values: Tensor, known: Tensor, grid: Tensor, begin: Tensor | None = None) -> Tensor:
    r"""The mean cumulative number of events of those who are observed, by Nelson's estimate.
    Arguments as for :func:`survival`.

    Example:
        >>> values = torch.tensor([[[1.0, 1.0], [3.0, 0.0]], [[2.0, 1.0], [2.5, 1.0]]])
        >>> mean_events(values, torch.ones(2, 2).bool(), torch.tensor([0.5, 1.0, 2.2, 2.5]))
        tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """
    happened = known & (values[..., 1] > 0)
    ends = torch.where(known, values[..., 0], -torch.inf).amax(-1)
    times = values[..., 0][happened].sort().values
    at_risk = number_at_risk(times, ends, begin)
    number = torch.cat([values.new_zeros(1), (1.0 / at_risk).to(values.dtype).cumsum(0)])
    return number[torch.searchsorted(times.contiguous(), grid, right=True)]


def entries_of(
    structure: ModelStructure, cohort: Cohort, draws: Tensor, population: Population, name: str
) -> Tensor:
    """Time of entry of each individual, shape ``(individual,)``; minus infinity for the begin, at
    which an event counts.
    """

    def begin_of(distribution: Any, value: Tensor) -> Tensor:
        begin = distribution.begin
        return value.new_full((len(value),), -torch.inf) if begin is None else begin.reshape(-1)

    site = next(n for n, s in structure.observed.items() if s.series == name)
    return site_values(structure, cohort, draws, population, site, begin_of)[0]


def draw_curve(
    ax: Axes, grid: Tensor, of_data: Tensor, band: tuple[np.ndarray, np.ndarray] | None
) -> None:
    """The curve of the data and the band of the simulations, if there is one."""
    x = grid.numpy()
    if band is not None:
        ax.fill_between(x, *band, color=FITTED, alpha=0.35, lw=0, label="90 % of simulations")
    ax.step(x, of_data.numpy(), where="post", color=OBSERVED, lw=1.5, label="data")


def _mark_censored(ax: Axes, values: Tensor, known: Tensor, begin: Tensor) -> None:
    """Marks on the curve where the observation of an individual ended without an event."""
    censored = values[:, 0, 0][values[:, 0, 1] == 0].unique()
    if len(censored):
        height = survival(values, known, censored, begin).numpy()
        ax.plot(censored.numpy(), height, "|", ms=6, color=OBSERVED, label="end of observation")


def event_errors(
    result: PopulationFit | IndividualPosteriors | EventResiduals,
    *,
    series: str | None = None,
    seed: int = 0,
) -> Figure:
    r"""Residuals of events: the cumulative hazard of the Cox-Snell residuals, which is a line of
    slope one under the right model; martingale residuals against the time; and the ranks ``pd``,
    which are uniform.

    Args:
        result: A fit, individual posteriors, or residuals that were computed before.
        series: Name of the series. Default: the first series of events.
        seed: Seed of the draws.

    Raises:
        CohortError: The model has no such series of events.
    """
    if isinstance(result, EventResiduals):
        r = result
    else:
        r = event_residuals(result, series=series, seed=seed)
    figure, axes = panel_grid(3, 3, 3.6, 3.0)
    for hazard in r.drawn_cox_snell:
        values = torch.stack([hazard, r.happened.double()], -1).unsqueeze(1)
        x = hazard[r.happened].sort().values
        if len(x):
            curve = survival(values, torch.ones_like(values[..., 0]).bool(), x)
            height = -curve.clamp(min=1e-12).log().numpy()
            axes[0].step(x.numpy()[:-1], height[:-1], where="post", color=FITTED, lw=0.8, alpha=0.7)
    axes[0].axline((0, 0), slope=1, color=MUTED, lw=1)
    label_axes(axes[0], "Cox-Snell residual", "its cumulative hazard")
    for shown, marker, label in ((r.happened, "o", "event"), (~r.happened, "v", "no event")):
        face = OBSERVED if marker == "o" else "none"
        x, y = r.times[shown].numpy(), r.martingale[shown].numpy()
        axes[1].plot(x, y, marker, ms=3, color=OBSERVED, mfc=face, alpha=0.7, label=label)
    axes[1].axhline(0, color=MUTED, lw=1)
    label_axes(axes[1], "time", "martingale residual")
    draw_rank_histogram(axes[2], r.pd.numpy())
    label_axes(axes[2], "pd (band: 95 % if uniform)", "number of individuals")
    add_legend(figure, axes)
    return figure
