r"""Figures of the uncertainty of population parameters: likelihood profiles and intervals."""

from collections.abc import Mapping

import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...population.comparison.likelihood_profiles import ProfileLikelihood
from ...population.results.fit_result import PopulationFit
from .panels import FITTED, MUTED, OBSERVED, label_axes

MARKERS = "osD^vP"


def profile(likelihood: ProfileLikelihood, ax: Axes | None = None) -> Figure:
    r"""A profile likelihood with its confidence interval.

    Args:
        likelihood: Result of
            :func:`~pyro_amortized.population.comparison.likelihood_profiles.profile_likelihood`.
        ax: Panel to draw in. Default: a new figure.
    """
    ax = ax or Figure(figsize=(4.2, 3.2), layout="constrained").subplots()
    limit = float(scipy.stats.chi2.ppf(likelihood.level, 1))
    ax.plot(likelihood.values.numpy(), likelihood.minus2ll.numpy(), "o-", ms=3, color=OBSERVED)
    ax.axhline(limit, color=MUTED, lw=1, ls=":")
    for bound in (likelihood.lower, likelihood.upper):
        ax.axvline(bound, color=FITTED, lw=1, ls="--")
    ax.set_ylim(-0.2, 2.5 * limit)
    interval = f"{likelihood.lower:.4g} to {likelihood.upper:.4g}"
    title = f"{100 * likelihood.level:.0f} % interval: {interval}"
    label_axes(ax, likelihood.name, "-2 log likelihood less its minimum", title)
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure


def forest(fits: PopulationFit | Mapping[str, PopulationFit], ax: Axes | None = None) -> Figure:
    r"""Estimates and 95 % intervals of one or several fits.

    The horizontal axis is the difference from the estimate of the first fit that has the parameter,
    in units of the standard error of that fit.

    Args:
        fits: A fit, or several by name.
        ax: Panel to draw in. Default: a new figure.
    """
    named = {"": fits} if isinstance(fits, PopulationFit) else dict(fits)
    tables = {
        label: {row.name: row for row in fit.summary().parameters} for label, fit in named.items()
    }
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    ax = ax or Figure(figsize=(5.6, 0.34 * len(names) + 1.2), layout="constrained").subplots()
    for k, (label, table) in enumerate(tables.items()):
        for j, name in enumerate(names):
            if name not in table:
                continue
            first = next(t[name] for t in tables.values() if name in t)
            row, unit = table[name], first.standard_error
            unit = unit if unit > 0 else 1.0  # the standard error may be NaN
            y = -j - 0.18 * (k - (len(tables) - 1) / 2)
            ends = [(x - first.estimate) / unit for x in (row.lower, row.upper)]
            color = OBSERVED if k == 0 else FITTED
            ax.plot(ends, [y, y], color=color, lw=1.2)
            ax.plot((row.estimate - first.estimate) / unit, y, MARKERS[k % 6], ms=4, color=color)
        ax.plot([], [], MARKERS[k % 6], ms=4, color=OBSERVED if k == 0 else FITTED, label=label)
    ax.axvline(0, color=MUTED, lw=0.8)
    if len(tables) > 1:
        ax.legend(frameon=False, fontsize=8)
    whose = " of the first fit" if len(tables) > 1 else ""
    label_axes(ax, f"estimate and 95 % interval, in standard errors{whose}", "")
    labels = [f"{n}  {next(t[n].estimate for t in tables.values() if n in t):.4g}" for n in names]
    ax.set_yticks([-j for j in range(len(names))], labels)
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure
