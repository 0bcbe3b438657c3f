r"""Visual predictive checks."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...errors import CohortError
from ...model import at_limits, predicted_moments
from ...population.fit_result import PopulationFit
from ...runtime.arguments import check_count
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..residual_analysis import bin_edges, check_series, individuals_of
from .style import FITTED, MUTED, OBSERVED, grid, labelled

PERCENTILES = (5, 50, 95)
MOST_LEVELS = 6  # of a covariate that is taken as it is; more are split at the median


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
    bands the central 90 % of the same percentiles of the simulated cohorts. With censored values a
    second row shows the share of them.

    Args:
        result: A fit, or individual posteriors.
        series: The series. Default: the model's first.
        prediction_corrected: Divide by the population prediction and multiply by its median in the
            bin, so that different doses and covariates can share a panel.
        stratify: A covariate: one panel for each of its values, or for its halves if there are more
            than six.
        num_bins: Bins of time.
        num_simulations: Simulated cohorts.
        seed: Their seed.

    Raises:
        CohortError: The series or the covariate is not there; a prediction correction of laws
            without a mean.

    References:
        Bergstrand, Hooker, Wallin, Karlsson (2011), Prediction-corrected visual predictive checks
        for diagnosing nonlinear mixed-effects models.
    """
    check_count("num_bins", num_bins)
    check_count("num_simulations", num_simulations)
    individuals, generator = individuals_of(result), make_generator(seed)
    name = check_series(individuals, series)
    structure, cohort = individuals.structure, individuals.cohort
    population = individuals.population
    strata = _strata(individuals, stratify)
    draws = structure.draw_individuals(cohort, population, num_simulations, generator)
    simulated = structure.predict_draws(cohort, draws, population, generator)[name]
    seen, times, values = (
        cohort[name].observed,
        cohort[name].times,
        cohort[name].values.clone(),
    )
    own = individuals.moments()[0].unsqueeze(0)
    limits = at_limits(structure, cohort, own, population)
    at_limit = limits[name][0] & seen if name in limits else torch.zeros_like(seen)
    limit = values[at_limit].max() if bool(at_limit.any()) else None
    edges = bin_edges(times[seen].numpy(), num_bins)
    place = torch.as_tensor(np.clip(np.digitize(times.numpy(), edges[1:-1]), 0, len(edges) - 2))
    if prediction_corrected:
        moments = predicted_moments(structure, cohort, draws.mean(0, keepdim=True), population)
        if name not in moments:
            raise CohortError(
                f"The law of {name!r} has no mean.",
                "a law with a mean, to correct by.",
                "leave `prediction_corrected=` out.",
            )
        factor = _correction(moments[name][0, ..., 0], place, seen, len(edges) - 1)
        values, simulated = values * factor, simulated * factor
    rows = 1 if limit is None else 2
    figure, axes = grid(rows * len(strata), len(strata), 4.2, 3.2)
    for j, (label, picked) in enumerate(strata.items()):
        mine = seen & picked.unsqueeze(1)
        _panel(axes[j], values, simulated, times, mine, place, edges)
        corrected = "prediction-corrected " if prediction_corrected else ""
        labelled(axes[j], "time", f"{corrected}{name}", label)
        if limit is not None:
            ax = axes[len(strata) + j]
            shares = (simulated <= limit).double()
            _share_panel(ax, at_limit.double(), shares, times, mine, place)
            labelled(ax, "time", "share at the limit")
    return figure


def _strata(individuals: IndividualPosteriors, covariate: str | None) -> dict[str, Tensor]:
    """Label and members of each panel."""
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
    if len(levels) <= MOST_LEVELS:
        return {f"{covariate} = {float(v):g}": x == v for v in levels}
    middle = x.median()
    return {
        f"{covariate} up to {float(middle):g}": x <= middle,
        f"{covariate} above {float(middle):g}": x > middle,
    }


def _correction(pred: Tensor, place: Tensor, seen: Tensor, num_bins: int) -> Tensor:
    """Median prediction in the bin over the prediction; one where that says nothing."""
    factor = torch.ones_like(pred)
    for b in range(num_bins):
        mine = (place == b) & seen
        if bool(mine.any()):
            factor[mine] = pred[mine].median() / pred[mine]
    return torch.where(factor.isfinite() & (factor > 0), factor, 1.0)


def _panel(
    ax: Axes,
    values: Tensor,
    simulated: Tensor,
    times: Tensor,
    mine: Tensor,
    place: Tensor,
    edges: np.ndarray,
) -> None:
    ax.plot(times[mine].numpy(), values[mine].numpy(), "o", ms=2, color=MUTED, alpha=0.6)
    levels = torch.tensor(PERCENTILES, dtype=torch.float64) / 100
    middle, data, low, high = [], [], [], []
    for b in range(len(edges) - 1):
        cells = mine & (place == b)
        if not bool(cells.any()):
            continue
        middle.append(float(times[cells].median()))
        data.append(values[cells].double().quantile(levels))
        each = simulated[:, cells].double().quantile(levels, dim=1)
        low.append(each.quantile(0.05, dim=1))
        high.append(each.quantile(0.95, dim=1))
    for p, (_, style) in enumerate(zip(PERCENTILES, ("--", "-", "--"), strict=True)):
        lower, upper = (np.array([float(x[p]) for x in side]) for side in (low, high))
        ax.fill_between(middle, lower, upper, color=FITTED, alpha=0.4 if p == 1 else 0.22, lw=0)
        ax.plot(middle, [float(x[p]) for x in data], style, color=OBSERVED, lw=1.4)


def _share_panel(
    ax: Axes, data: Tensor, simulated: Tensor, times: Tensor, mine: Tensor, place: Tensor
) -> None:
    """Share of values at the limit in every bin."""
    middle, shares, low, high = [], [], [], []
    for b in range(int(place.max()) + 1):
        cells = mine & (place == b)
        if not bool(cells.any()):
            continue
        middle.append(float(times[cells].median()))
        shares.append(float(data[cells].mean()))
        each = simulated[:, cells].mean(1)
        low.append(float(each.quantile(0.05)))
        high.append(float(each.quantile(0.95)))
    ax.fill_between(middle, low, high, color=FITTED, alpha=0.4, lw=0)
    ax.plot(middle, shares, "-", color=OBSERVED, lw=1.4)
    ax.set_ylim(-0.02, max(0.1, *(1.05 * x for x in high if not math.isnan(x))))
