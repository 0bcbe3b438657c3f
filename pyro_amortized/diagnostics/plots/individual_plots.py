r"""One individual at a time: data and fitted curves."""

from dataclasses import replace

import torch
from matplotlib.figure import Figure

from ...cohort import Cohort, Series
from ...model import at_limits
from ...population.fit_result import PopulationFit
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..residual_analysis import check_series, individuals_of
from .style import FITTED, MUTED, OBSERVED, band, grid, labelled


def individual_fits(
    result: PopulationFit | IndividualPosteriors,
    *,
    series: str | None = None,
    num_draws: int = 300,
    num_times: int = 80,
    max_individuals: int = 24,
    seed: int = 0,
) -> Figure:
    r"""Observations of every individual with its fitted curve.

    The line is the posterior median of the predicted mean, the dark band its central 90 %, the
    light band the central 90 % of new observations (residual error included), the dashed line the
    prediction with the population's typical parameters.

    Args:
        result: A fit, or individual posteriors.
        series: The series to show. Default: the model's first.
        num_draws: Posterior draws behind the bands.
        num_times: Points of the curve.
        max_individuals: Show at most this many individuals; the title says if there are more.
        seed: Seed of the draws.

    Raises:
        CohortError: The model does not observe the series, or the series has several channels.
    """
    individuals, name = individuals_of(result), check_series(individuals_of(result), series)
    structure, cohort = individuals.structure, individuals.cohort
    shown, generator = min(len(cohort), max_individuals), make_generator(seed)
    picked = individuals.resampled(num_draws, generator)[:, :shown]
    dense, population = _dense(cohort[:shown], structure.series, num_times), individuals.population
    mean = structure.predicted_mean(dense, picked, population)[name]
    predicted = structure.predict_draws(dense, picked, population, generator)[name]
    typical = structure.draw_individuals(dense, population, num_draws, generator).mean(0)
    of_population = structure.predicted_mean(dense, typical[None], population)[name][0]
    own = individuals.moments()[0].unsqueeze(0)
    limits = at_limits(structure, cohort, own, population)
    nothing = torch.zeros_like(cohort[name].observed)
    at_limit = limits[name][0] if name in limits else nothing
    figure, axes = grid(shown, 4, 3.0, 2.3, sharey=True)
    for i, ax in enumerate(axes):
        times = dense[name].times[i].numpy()
        band(ax, times, predicted[:, i], 0.18)
        band(ax, times, mean[:, i], 0.40)
        ax.plot(times, mean[:, i].median(0).values.numpy(), color=FITTED, lw=1.4)
        ax.plot(times, of_population[i].numpy(), color=MUTED, lw=1.0, ls="--")
        seen = cohort[name].observed[i]
        for picked_values, marker, face in (
            (seen & ~at_limit[i], "o", OBSERVED),
            (seen & at_limit[i], "v", "none"),
        ):
            x, y = (z[i][picked_values].numpy() for z in (cohort[name].times, cohort[name].values))
            ax.plot(x, y, marker, ms=3.5, color=OBSERVED, mfc=face)
        labelled(ax, "", "", f"individual {cohort.ids[i]}")
    more = f" (first {shown} of {len(cohort)})" if shown < len(cohort) else ""
    figure.suptitle(
        f"Individual fits{more}: median, 90 % band of the mean, 90 % band of observations;\n"
        "dashed: population prediction; open triangles: at a limit",
        fontsize=10,
    )
    figure.supxlabel("time", fontsize=9)
    figure.supylabel(name, fontsize=9)
    return figure


def _dense(cohort: Cohort, names: list[str], num_times: int) -> Cohort:
    """The same individuals on a fine grid of times, from the first event to the last
    observation.
    """
    series = dict(cohort.series)
    for name in names:
        s = cohort[name]
        first = s.times[:, :1]
        if cohort.doses is not None:
            given = torch.where(cohort.doses.given, cohort.doses.times, torch.inf).amin(
                1, keepdim=True
            )
            first = torch.minimum(first, given)
        grid = first + (s.times[:, -1:] - first) * torch.linspace(
            0, 1, num_times, dtype=s.times.dtype
        )
        values = s.values[:, :1].expand(-1, num_times, *s.values.shape[2:])
        series[name] = Series(grid, values.contiguous(), torch.ones_like(values, dtype=torch.bool))
    return replace(cohort, series=series)
