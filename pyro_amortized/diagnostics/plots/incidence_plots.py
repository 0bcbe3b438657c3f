r"""Figures of competing events: the cumulative incidence of each cause.

The share of the individuals who have had an event of cause k until t is, by the estimator of Aalen
and Johansen,

.. math:: \hat F_k(t) = \sum_{t_j \le t} \hat S(t_j^-)\, \frac{d_{jk}}{n_j} ,

with the estimate :math:`\hat S` of Kaplan and Meier of the share without any event, the number
:math:`n_j` at risk at :math:`t_j` and the number :math:`d_{jk}` of events of the cause there.
One minus a Kaplan-Meier curve that takes other causes for the end of an observation is too large.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...cohort import Cohort
from ...errors import CohortError, SettingError
from ...model import ModelStructure
from ...population.results.fit_result import PopulationFit
from ...runtime.arguments import check_count
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..events.event_residuals import event_name
from ..result_selection import individuals_of
from .event_plots import NUM_POINTS, draw_curve, entries_of, number_at_risk
from .panels import BAND, add_legend, label_axes, panel_grid
from .strata import strata_of

UNKNOWN = -1  # number of the cause of an event that was not recorded


def cumulative_incidences(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    cause: str | None = None,
    names: Sequence[str] = (),
    stratify: str | None = None,
    num_simulations: int = 500,
    seed: int = 0,
) -> Figure:
    r"""Share of the individuals with an event of each cause over time, of the data (line) and of
    cohorts simulated from the population (band, central 90 %); one panel for each cause, and one
    for events whose cause was not recorded, of the data alone.

    Args:
        result: A fit, or individual posteriors, of a model with
            :func:`~pyro_amortized.nlme.outcomes.competing_events.cause_of_event`.
        series: Name of the series of events. Default: the first one.
        cause: Name of the series of causes: 0 for no event, and 1, 2, ... Default: the only series
            of categories that agrees with the events.
        names: Names of the causes 1, 2, ...
        stratify: Name of a covariate: one row of panels for each of its values, or for each half of
            the individuals if it has more than six values.
        num_simulations: Number of simulated cohorts.
        seed: Seed of the simulations.

    Raises:
        CohortError: The model has no such series, or the cohort no such covariate.
        SettingError: A number is outside its range, or there is another number of names.

    References:
        Aalen, Johansen (1978), An empirical transition matrix for non-homogeneous Markov chains
        based on censored observations.
    """
    check_count("num_simulations", num_simulations)
    individuals, generator = individuals_of(result), make_generator(seed)
    structure, cohort = individuals.structure, individuals.cohort
    name = event_name(structure, series)
    cause = _cause_name(structure, cohort, name, cause)
    population = individuals.population
    draws = structure.draw_individuals(cohort, population, num_simulations, generator)
    simulated = structure.predict_draws(cohort, draws, population, generator)
    begin = entries_of(structure, cohort, draws[:1], population, name)
    recorded = cohort[cause].observed[:, 0]
    causes = torch.where(recorded, cohort[cause].values[:, 0].round().long(), UNKNOWN)
    data = _FirstEvents(cohort[name].values.double(), causes, begin)
    drawn = [
        _FirstEvents(x, c[:, 0].round().long(), begin)
        for x, c in zip(simulated[name].double(), simulated[cause], strict=True)
    ]
    known = cohort[name].observed.all(-1)[:, 0]
    largest = max(int(x.causes.max()) for x in (data, *drawn))
    labels = _labels(range(1, largest + 1), names)
    if bool((~recorded & known & (data.values[:, 0, 1] > 0)).any()):
        labels |= {UNKNOWN: "cause not recorded"}
    strata = strata_of(cohort, stratify)
    figure, axes = panel_grid(len(strata) * len(labels), len(labels), 4.4, 3.2, sharey=True)
    for j, (stratum, members) in enumerate(strata.items()):
        rows, first = members & known, j * len(labels)
        _draw_causes(axes[first : first + len(labels)], data, drawn, rows, labels, stratum)
    axes[0].set_ylim(bottom=0.0)  # of all panels, when all are drawn
    add_legend(figure, axes)
    return figure


class _FirstEvents(NamedTuple):
    """First events of a cohort: times and status, causes, and entries."""

    values: Tensor
    causes: Tensor
    begin: Tensor

    def curve(self, number: int, rows: Tensor, grid: Tensor) -> Tensor:
        """Cumulative incidence of a cause in some of the individuals."""
        return incidence(self.values[rows], self.causes[rows], number, grid, self.begin[rows])


def _draw_causes(
    axes: Sequence[Axes],
    data: _FirstEvents,
    drawn: Sequence[_FirstEvents],
    rows: Tensor,
    labels: Mapping[int, str],
    stratum: str,
) -> None:
    """The panels of some of the individuals, one for each cause."""
    if not bool(rows.any()):
        return
    end = float(data.values[rows, 0, 0].max())
    grid = torch.linspace(0.0, end, NUM_POINTS, dtype=torch.float64)
    for ax, (number, label) in zip(axes, labels.items(), strict=True):
        band = None
        if number != UNKNOWN:
            curves = torch.stack([x.curve(number, rows, grid) for x in drawn])
            low, high = (curves.quantile(q, dim=0).numpy() for q in BAND)
            band = (low, high)
        draw_curve(ax, grid, data.curve(number, rows, grid), band)
        words = "cumulative incidence" if ax is axes[0] else ""
        label_axes(ax, "time", words, f"{label}, {stratum}" if stratum else label)


def series_of_causes(structure: ModelStructure, cohort: Cohort, event: str) -> list[str]:
    """Names of the series of categories that are the causes of an event: one value of each
    individual, which is above zero where the event has happened.
    """
    values, known = cohort[event].values, cohort[event].observed.all(-1)
    if values.shape[1] > 1:
        return []
    found = []
    for site in structure.observed.values():
        causes = cohort[site.series]
        if site.kind != "category" or causes.values.shape != values.shape[:2]:
            continue
        agrees = (causes.values > 0) == (values[..., 1] > 0)
        if bool(agrees[causes.observed & known].all()):
            found.append(site.series)
    return found


def _cause_name(structure: ModelStructure, cohort: Cohort, event: str, cause: str | None) -> str:
    """The series of the causes of the events.

    Raises:
        CohortError: There is no such series, or several.
    """
    found = series_of_causes(structure, cohort, event)
    if (cause is None and len(found) != 1) or (cause is not None and cause not in found):
        raise CohortError(
            f"The causes of {event!r} are not known: the series that may hold them are {found}"
            + ("." if cause is None else f", and `cause` is {cause!r}."),
            "one event of each individual, and a series of its cause (`nlme.cause_of_event`): 0 "
            "for no event, and 1, 2, ...",
            "pass its name as `cause=`; without causes draw `plots.event_curves(fit)`.",
        )
    return found[0] if cause is None else cause


def _labels(numbers: range, names: Sequence[str]) -> dict[int, str]:
    """Names of the causes by their numbers."""
    if names and (isinstance(names, str) or len(names) != len(numbers)):
        raise SettingError(
            f"`names` is {names!r}, and there are {len(numbers)} causes.",
            "a name for each of them.",
            'pass for instance `names=["death", "relapse"]`.',
        )
    return {k: names[k - 1] if names else f"cause {k}" for k in numbers}


def incidence(
    values: Tensor, causes: Tensor, number: int, grid: Tensor, begin: Tensor | None = None
) -> Tensor:
    r"""The estimate of Aalen and Johansen of the share with an event of one cause.

    Args:
        values: Times and status, shape ``(individual, event, 2)``; the first event counts.
        causes: Cause of each, shape ``(individual,)``.
        number: The cause.
        grid: Times, shape ``(time,)``.
        begin: Time of entry of each individual, shape ``(individual,)``. Default: the begin.

    Example:
        >>> values = torch.tensor([[[1.0, 1.0]], [[2.0, 1.0]], [[3.0, 0.0]], [[4.0, 1.0]]])
        >>> incidence(values, torch.tensor([1, 2, 0, 1]), 1, torch.tensor([0.5, 1.0, 2.0, 4.0]))
        tensor([0.0000, 0.2500, 0.2500, 0.7500])
    """
    times, happened = values[:, 0, 0], values[:, 0, 1] > 0
    events, order = times[happened].sort()
    is_cause = (causes[happened][order] == number).to(values.dtype)
    earlier = torch.arange(len(events)) - torch.searchsorted(events, events)
    at_risk = (number_at_risk(events, times, begin) - earlier).clamp(min=1).to(values.dtype)
    without = torch.cat([values.new_ones(1), (1 - 1 / at_risk).cumprod(0)])
    mass = torch.cat([values.new_zeros(1), (without[:-1] * is_cause / at_risk).cumsum(0)])
    return mass[torch.searchsorted(events, grid.contiguous(), right=True)]
