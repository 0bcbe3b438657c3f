r"""Visual predictive checks: percentiles of the data beside those of simulated cohorts."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...errors import CohortError
from ...model import predicted_moments
from ...population.fit_result import PopulationFit
from ...runtime.arguments import check_count
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..result_selection import check_series, individuals_of, recorded_at_limit
from .panels import FITTED, MUTED, OBSERVED, label_axes, panel_grid


@dataclass(frozen=True)
class PredictiveCheckSettings:
    r"""What a visual predictive check shows.

    Args:
        percentiles: Percentiles of the data and of the simulated cohorts.
        band: Quantiles over the simulated cohorts that bound the bands: their central 90 %.
        max_levels: Most values of a covariate that have a panel each; a covariate with more values
            is divided at its median.
    """

    percentiles: tuple[float, float, float] = (0.05, 0.5, 0.95)
    band: tuple[float, float] = (0.05, 0.95)
    max_levels: int = 6


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
        simulated: Shape ``(simulation, individual, time)``.
        times: Shape ``(individual, time)``.
        observed: Whether a value is recorded, same shape.
        bins: Number of the bin, same shape.
        num_bins: Number of bins.
    """

    values: Tensor
    simulated: Tensor
    times: Tensor
    observed: Tensor
    bins: Tensor
    num_bins: int

    def cells(self, individuals: Tensor) -> list[Tensor]:
        """Recorded cells of some individuals in each bin that has any."""
        shown = self.observed & individuals.unsqueeze(1)
        in_bins = [shown & (self.bins == b) for b in range(self.num_bins)]
        return [cells for cells in in_bins if bool(cells.any())]


def visual_predictive_check(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    prediction_corrected: bool = False,
    stratify: str | None = None,
    num_bins: int = 8,
    num_simulations: int = 500,
    seed: int = 0,
) -> Figure:
    r"""Percentiles of the data over time beside those of cohorts simulated from the population.

    Lines are the 5th, 50th and 95th percentile of the data in bins of about equally many values,
    bands the central 90 % of the same percentiles of the simulated cohorts. If values are censored,
    a second row of panels shows their share.

    Args:
        result: A fit, or individual posteriors.
        series: Name of the series. Default: the first series of the model.
        prediction_corrected: Divide by the population prediction and multiply by its median in the
            bin, so that individuals with different doses and covariates can share a panel.
        stratify: Name of a covariate: one panel for each of its values, or one for each half of the
            individuals if it has more than six values.
        num_bins: Number of bins of time.
        num_simulations: Number of simulated cohorts.
        seed: Seed of the simulations.

    Raises:
        CohortError: The cohort has no such series or covariate, or the prediction cannot be
            corrected because the distribution of the observations has no mean.
        SettingError: A number is outside its range.

    References:
        Bergstrand, Hooker, Wallin, Karlsson (2011), Prediction-corrected visual predictive checks
        for diagnosing nonlinear mixed-effects models.
    """
    check_count("num_bins", num_bins)
    check_count("num_simulations", num_simulations)
    individuals, generator = individuals_of(result), make_generator(seed)
    name = check_series(individuals, series)
    structure, cohort = individuals.structure, individuals.cohort
    strata = _strata(individuals, stratify)
    draws = structure.draw_individuals(cohort, individuals.population, num_simulations, generator)
    simulated = structure.predict_draws(cohort, draws, individuals.population, generator)[name]
    binned = _binned(individuals, name, simulated, num_bins)
    at_limit = recorded_at_limit(individuals, name)
    limit = binned.values[at_limit].max() if bool(at_limit.any()) else None
    uncorrected = binned  # the limit is one of values, not of corrected values
    if prediction_corrected:
        factor = _correction(individuals, name, draws.mean(0, keepdim=True), binned)
        binned = replace(binned, values=binned.values * factor, simulated=binned.simulated * factor)
    rows = 1 if limit is None else 2
    figure, axes = panel_grid(rows * len(strata), len(strata), 4.2, 3.2)
    for j, (label, members) in enumerate(strata.items()):
        _draw_percentiles(axes[j], binned, members)
        kind = "prediction-corrected " if prediction_corrected else ""
        label_axes(axes[j], "time", f"{kind}{name}", label)
        if j == 0:
            axes[j].legend(fontsize=6, loc="best", framealpha=0.5)
        if limit is not None:
            ax = axes[len(strata) + j]
            _draw_shares(ax, uncorrected, members, at_limit, limit)
            label_axes(ax, "time", "share at the limit")
    return figure


def _strata(individuals: IndividualPosteriors, covariate: str | None) -> dict[str, Tensor]:
    """Members of each panel, boolean of shape ``(individual,)``, by the title of the panel."""
    cohort = individuals.cohort
    if covariate is None:
        return {"": torch.ones(len(cohort), dtype=torch.bool)}
    if covariate not in cohort.covariates:
        raise CohortError(
            f"There is no covariate {covariate!r}.",
            f"one of {list(cohort.covariates)}.",
            "check the name in `stratify=`.",
        )
    x = cohort.covariates[covariate]
    levels = x.unique()
    if len(levels) <= DEFAULTS.max_levels:
        return {f"{covariate} = {float(v):g}": x == v for v in levels}
    median = x.median()
    return {
        f"{covariate} up to {float(median):g}": x <= median,
        f"{covariate} above {float(median):g}": x > median,
    }


def _binned(
    individuals: IndividualPosteriors, name: str, simulated: Tensor, num_bins: int
) -> _Binned:
    """The series in bins of time with about equally many recorded values."""
    series = individuals.cohort[name]
    edges = _bin_edges(series.times[series.observed].numpy(), num_bins)
    bins = np.clip(np.digitize(series.times.numpy(), edges[1:-1]), 0, len(edges) - 2)
    return _Binned(
        series.values.clone(),
        simulated,
        series.times,
        series.observed,
        torch.as_tensor(bins),
        len(edges) - 1,
    )


def _bin_edges(times: np.ndarray, num_bins: int) -> np.ndarray:
    """Edges of bins with about equally many values; fewer bins if many times are equal."""
    edges = np.unique(np.quantile(times, np.linspace(0, 1, num_bins + 1)))
    return edges if len(edges) > 1 else np.array([edges[0] - 0.5, edges[0] + 0.5])


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


def _draw_percentiles(ax: Axes, binned: _Binned, members: Tensor) -> None:
    """Recorded values, their percentiles in each bin, and bands of the simulated percentiles."""
    shown = binned.observed & members.unsqueeze(1)
    ax.plot(
        binned.times[shown].numpy(),
        binned.values[shown].numpy(),
        "o",
        ms=2,
        color=MUTED,
        alpha=0.6,
    )
    levels = torch.tensor(DEFAULTS.percentiles, dtype=torch.float64)
    middles, of_data, low, high = [], [], [], []
    for cells in binned.cells(members):
        middles.append(float(binned.times[cells].median()))
        of_data.append(binned.values[cells].double().quantile(levels))
        of_cohorts = binned.simulated[:, cells].double().quantile(levels, dim=1)
        low.append(of_cohorts.quantile(DEFAULTS.band[0], dim=1))
        high.append(of_cohorts.quantile(DEFAULTS.band[1], dim=1))
    for p, style in enumerate(("--", "-", "--")):
        lower, upper = (np.array([float(x[p]) for x in side]) for side in (low, high))
        band, line = LEGEND.get(p, ("", ""))
        alpha = 0.4 if p == 1 else 0.22
        ax.fill_between(middles, lower, upper, label=band, color=FITTED, alpha=alpha, lw=0)
        of_level = [float(x[p]) for x in of_data]
        ax.plot(middles, of_level, style, color=OBSERVED, lw=1.4, label=line)


def _draw_shares(
    ax: Axes, binned: _Binned, members: Tensor, at_limit: Tensor, limit: Tensor
) -> None:
    """Share of values at or below the limit in each bin."""
    below = (binned.simulated <= limit).double()
    middles, of_data, low, high = [], [], [], []
    for cells in binned.cells(members):
        middles.append(float(binned.times[cells].median()))
        of_data.append(float(at_limit.double()[cells].mean()))
        of_cohorts = below[:, cells].mean(1)
        low.append(float(of_cohorts.quantile(DEFAULTS.band[0])))
        high.append(float(of_cohorts.quantile(DEFAULTS.band[1])))
    ax.fill_between(middles, low, high, color=FITTED, alpha=0.4, lw=0)
    ax.plot(middles, of_data, "-", color=OBSERVED, lw=1.4)
    ax.set_ylim(-0.02, max(0.1, *(1.05 * x for x in high if not math.isnan(x))))
