r"""Visual predictive checks: percentiles of the data beside those of simulated cohorts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...errors import CohortError, SettingError
from ...model import predicted_moments
from ...population.results.fit_result import PopulationFit
from ...runtime.arguments import check_count
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..dose_intervals import course_numbers, dose_times, time_after_dose, unbroken
from ..measurements.simulated_recording import as_would_be_recorded
from ..result_selection import check_series, individuals_of, outcome_kinds, recorded_at_limit
from .event_plots import event_curves
from .panels import (
    FITTED,
    MUTED,
    OBSERVED,
    add_legend,
    check_time_axis,
    label_axes,
    panel_grid,
    set_log_panels,
)
from .share_plots import category_shares
from .strata import strata_of
from .time_bins import equal_bins, natural_bins


@dataclass(frozen=True)
class PredictiveCheckSettings:
    r"""What a visual predictive check shows.

    Args:
        percentiles: Percentiles of the data and of the simulated cohorts.
        band: Quantiles over the simulated cohorts that bound the bands: their central 90 %.
        single_width: Half the width of a bin without neighbours, as a share of the axis.
    """

    percentiles: tuple[float, float, float] = (0.05, 0.5, 0.95)
    band: tuple[float, float] = (0.05, 0.95)
    single_width: float = 0.01


DEFAULTS = PredictiveCheckSettings()
# Legend of the band and of the line of a percentile, by its place.
LEGEND = {
    0: ("5th, 95th percentile: 90 % of simulations", "5th, 95th percentile of the data"),
    1: ("median: 90 % of simulations", "median of the data"),
}


@dataclass(frozen=True)
class _Binned:
    """Values of a series, data and simulated, and the bin of each.

    Args:
        values: Recorded values, shape ``(individual, time)``.
        simulated: Shape ``(simulation, individual, time)``; NaN where a simulated value would not
            have been recorded.
        times: Shape ``(individual, time)``: times, or times after dose.
        observed: Whether a value is recorded and has such a time, same shape.
        planned: Whether a simulated value can be recorded and has such a time, same shape.
        bins: Number of the bin, same shape.
        num_bins: Number of bins.
        doses: Times of the doses, in which lines may be broken; empty for times after dose.
    """

    values: Tensor
    simulated: Tensor
    times: Tensor
    observed: Tensor
    planned: Tensor
    bins: Tensor
    num_bins: int
    doses: np.ndarray

    def times_factor(self, factor: Tensor) -> "_Binned":
        """The same with values multiplied by a factor ``(individual, time)``."""
        return replace(self, values=self.values * factor, simulated=self.simulated * factor)

    def cells(self, individuals: Tensor) -> list[Tensor]:
        """Recorded cells of some individuals in each bin that has any."""
        shown = self.observed & individuals.unsqueeze(1)
        in_bins = [shown & (self.bins == b) for b in range(self.num_bins)]
        return [cells for cells in in_bins if bool(cells.any())]

    def places(self, individuals: Tensor) -> list[Tensor]:
        """Places of simulated values in each bin of :meth:`cells`."""
        shown = self.planned & individuals.unsqueeze(1)
        used = [int(self.bins[cells][0]) for cells in self.cells(individuals)]
        return [shown & (self.bins == b) for b in used]

    def middles(self, individuals: Tensor) -> np.ndarray:
        """The median time of each of these bins."""
        return np.array([float(self.times[cells].median()) for cells in self.cells(individuals)])


def visual_predictive_check(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    prediction_corrected: bool = False,
    stratify: str | None = None,
    x: str = "time",
    num_bins: int | None = None,
    num_simulations: int = 500,
    log: bool = False,
    seed: int = 0,
) -> Figure:
    r"""Percentiles of the data over time beside those of cohorts simulated from the population.

    Categories have their shares
    (:func:`~pyro_amortized.diagnostics.plots.share_plots.category_shares`) and events the share of
    individuals without one (:func:`~pyro_amortized.diagnostics.plots.event_plots.event_curves`).

    Lines are the 5th, 50th and 95th percentile of the data in bins of time, bands the central 90 %
    of the same percentiles of the simulated cohorts. Both are broken where a dose lies in a long
    gap without data. If values are censored, a second row of panels shows their share, from values
    and simulations that are not corrected.

    Args:
        result: A fit, or individual posteriors.
        series: Name of the series. Default: the first series of the model.
        prediction_corrected: Divide by the population prediction and multiply by its median in the
            bin, so that individuals with different doses and covariates can share a panel.
        stratify: Name of a covariate (for instance of the arm or the condition): one panel for each
            of its values, or one for each half of the individuals if it has more than six values.
        x: ``"time"``, or ``"time after dose"``: values before the first dose are then left out.
        num_bins: Number of bins with about equally many values. Default: bins that end in the gaps
            between the times of the data.
        num_simulations: Number of simulated cohorts.
        log: Logarithmic vertical axis.
        seed: Seed of the simulations.

    Raises:
        CohortError: The cohort has no such series or covariate, no value has a time after dose, or
            the prediction cannot be corrected because the distribution of the observations has no
            mean.
        SettingError: A number is outside its range, or ``x`` is something else.

    References:
        Bergstrand, Hooker, Wallin, Karlsson (2011), Prediction-corrected visual predictive checks
        for diagnosing nonlinear mixed-effects models.
    """
    _check_settings(num_bins, num_simulations, x)
    individuals, generator = individuals_of(result), make_generator(seed)
    structure, cohort = individuals.structure, individuals.cohort
    kind = outcome_kinds(structure).get(series or structure.series[0])
    if kind in ("event", "category"):
        _check_plain(kind, x, prediction_corrected, log)
        of_kind = event_curves if kind == "event" else partial(category_shares, num_bins=num_bins)
        options = {"num_simulations": num_simulations, "seed": seed}
        return of_kind(individuals, series=series, stratify=stratify, **options)
    name = check_series(individuals, series)
    strata = strata_of(cohort, stratify)
    draws = structure.draw_individuals(cohort, individuals.population, num_simulations, generator)
    every = structure.predict_draws(cohort, draws, individuals.population, generator)
    binned = _binned(individuals, name, every, x, num_bins)
    at_limit = recorded_at_limit(individuals, name)
    uncorrected = binned  # the limit is one of values, not of corrected values
    if prediction_corrected:
        binned = binned.times_factor(_correction(individuals, name, draws.mean(0, True), binned))
    figure, axes = _panels(len(strata), bool(at_limit.any()))
    title = f"prediction-corrected {name}" if prediction_corrected else name
    for j, (label, members) in enumerate(strata.items()):
        _draw_percentiles(axes[j], binned, members, at_limit)
        label_axes(axes[j], "" if len(axes) > len(strata) else x, title if j == 0 else "", label)
    if log:
        set_log_panels(axes[: len(strata)], None if prediction_corrected else cohort[name])
    _draw_second_row(axes[len(strata) :], uncorrected, list(strata.values()), at_limit, x)
    add_legend(figure, axes)
    return figure


def _panels(num_strata: int, has_shares: bool) -> tuple[Figure, list[Axes]]:
    """A panel for each stratum, and a second row where values lie at a limit."""
    width = 6.4 if num_strata == 1 else 4.4
    num_panels = (2 if has_shares else 1) * num_strata
    return panel_grid(num_panels, num_strata, width, 3.0, sharex=True, sharey="row")


def _check_settings(num_bins: int | None, num_simulations: int, x: str) -> None:
    """Check the numbers and the axis."""
    if num_bins is not None:
        check_count("num_bins", num_bins)
    check_count("num_simulations", num_simulations)
    check_time_axis(x)


def _check_plain(kind: str, x: str, prediction_corrected: bool, log: bool) -> None:
    """Refuse what events and categories do not have."""
    if x != "time" or prediction_corrected or log:
        noun = {"event": "events", "category": "categories"}[kind]
        raise SettingError(
            f"A check of {noun} with `x={x!r}`, `prediction_corrected={prediction_corrected}`, "
            f"`log={log}`.",
            "shares over time, without corrections and logarithms.",
            "leave these arguments out; `stratify=` divides the individuals.",
        )


def _draw_second_row(
    axes: Sequence[Axes], binned: _Binned, strata: Sequence[Tensor], at_limit: Tensor, x: str
) -> None:
    """The shares of values at the limit, one panel for each stratum, if there are such panels."""
    if not axes:
        return
    limit = binned.values[at_limit].max()
    for j, (ax, members) in enumerate(zip(axes, strata, strict=True)):
        _draw_shares(ax, binned, members, at_limit, limit)
        label_axes(ax, x, "share at the limit" if j == 0 else "")
    axes[-1].set_ylim(-0.02, max(0.1, axes[-1].get_ylim()[1]))


def _binned(
    individuals: IndividualPosteriors,
    name: str,
    every: dict[str, Tensor],
    x: str,
    num_bins: int | None,
) -> _Binned:
    """The series in bins of time."""
    cohort = individuals.cohort
    series = cohort[name]
    after = x == "time after dose"
    times = time_after_dose(cohort, name) if after else series.times
    observed = series.observed & times.isfinite()
    if not bool(observed.any()):
        raise CohortError(
            f"No recorded value of {name!r} has a {x}.",
            "values after a dose.",
            'pass `x="time"`.',
        )
    known = times[observed].numpy()
    if num_bins is None:
        courses = course_numbers(cohort, name, by_dose=after)
        edges = natural_bins(known, len(cohort), courses[observed].numpy())
    else:
        edges = equal_bins(known, num_bins)
    bins = torch.as_tensor(np.digitize(times.nan_to_num(0.0).numpy(), edges))
    doses = np.zeros(0) if after else dose_times(cohort)
    values = series.values.clone()
    simulated, planned = as_would_be_recorded(cohort, name, every)
    planned = planned & times.isfinite()
    return _Binned(values, simulated, times, observed, planned, bins, len(edges) + 1, doses)


def _correction(
    individuals: IndividualPosteriors, name: str, typical: Tensor, binned: _Binned
) -> Tensor:
    """Median population prediction in the bin divided by that of the value, shape ``(individual,
    time)``; one where this is not positive and finite.
    """
    structure, cohort = individuals.structure, individuals.cohort
    moments = predicted_moments(structure, cohort, typical, individuals.population)
    if name not in moments:
        raise CohortError(
            f"The distribution of {name!r} has no mean.",
            "a distribution with a mean, by which predictions can be corrected.",
            "leave out `prediction_corrected=`.",
        )
    prediction = moments[name][0, ..., 0]
    factor = torch.ones_like(prediction)
    for cells in binned.cells(torch.ones(len(cohort), dtype=torch.bool)):
        factor[cells] = prediction[cells].median() / prediction[cells]
    return torch.where(factor.isfinite() & (factor > 0), factor, 1.0)


def _draw_percentiles(ax: Axes, binned: _Binned, members: Tensor, at_limit: Tensor) -> None:
    """Recorded values, their percentiles in each bin, and bands of the simulated percentiles."""
    shown = binned.observed & members.unsqueeze(1)
    for cells, marker, face, label in (
        (shown & ~at_limit, "o", MUTED, "data"),
        (shown & at_limit, "v", "none", "data at a limit"),
    ):
        if bool(cells.any()):
            x, y = binned.times[cells].numpy(), binned.values[cells].numpy()
            ax.plot(x, y, marker, ms=3, color=MUTED, mfc=face, mew=0.7, alpha=0.7, label=label)
    levels = torch.tensor(DEFAULTS.percentiles, dtype=torch.float64)
    of_data, low, high = [], [], []
    for cells, places in zip(binned.cells(members), binned.places(members), strict=True):
        of_data.append(binned.values[cells].double().quantile(levels))
        of_cohorts = binned.simulated[:, places].double().nanquantile(levels, dim=1)
        low.append(of_cohorts.nanquantile(DEFAULTS.band[0], dim=1))
        high.append(of_cohorts.nanquantile(DEFAULTS.band[1], dim=1))
    middles = binned.middles(members)
    for p, style in enumerate(("--", "-", "--")):
        lower, upper, line = (
            np.array([float(x[p]) for x in side]) for side in (low, high, of_data)
        )
        alpha = 0.4 if p == 1 else 0.22
        _draw_broken(ax, binned, middles, (line, lower, upper), style, alpha, LEGEND.get(p))


def _draw_broken(
    ax: Axes,
    binned: _Binned,
    middles: np.ndarray,
    curves: tuple[np.ndarray, np.ndarray, np.ndarray],
    style: str,
    alpha: float,
    labels: tuple[str, str] | None,
) -> None:
    """A line and a band, each broken across gaps; a part of one bin gets a width."""
    line, lower, upper = curves
    width = DEFAULTS.single_width * (float(np.ptp(middles)) or 1.0)
    for k, part in enumerate(unbroken(middles, binned.doses)):
        x = middles[part]
        low, high, y = lower[part], upper[part], line[part]
        if len(x) == 1:
            x = np.array([x[0] - width, x[0] + width])
            low, high, y = (np.repeat(z, 2) for z in (low, high, y))
        band, of_data = labels if labels is not None and k == 0 else (None, None)
        ax.fill_between(x, low, high, color=FITTED, alpha=alpha, lw=0, label=band)
        ax.plot(x, y, style, color=OBSERVED, lw=1.4, label=of_data)


def _draw_shares(
    ax: Axes, binned: _Binned, members: Tensor, at_limit: Tensor, limit: Tensor
) -> None:
    """Share of values at or below the limit in each bin."""
    below = torch.where(binned.simulated.isnan(), torch.nan, (binned.simulated <= limit).double())
    of_data, low, high = [], [], []
    for cells, places in zip(binned.cells(members), binned.places(members), strict=True):
        of_data.append(float(at_limit.double()[cells].mean()))
        of_cohorts = below[:, places].nanmean(1)
        low.append(float(of_cohorts.nanquantile(DEFAULTS.band[0])))
        high.append(float(of_cohorts.nanquantile(DEFAULTS.band[1])))
    curves = (np.array(of_data), np.array(low), np.array(high))
    labels = ("share at the limit: 90 % of simulations", "share at the limit of the data")
    _draw_broken(ax, binned, binned.middles(members), curves, "-", 0.4, labels)
