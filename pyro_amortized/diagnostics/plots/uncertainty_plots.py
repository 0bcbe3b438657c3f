r"""Uncertainty of the population: profiles and forests."""

from collections.abc import Mapping

import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...population.fit_result import PopulationFit
from ...population.likelihood_profiles import ProfileLikelihood
from .style import FITTED, MUTED, OBSERVED, labelled

MARKERS = "osD^vP"


def profile(found: ProfileLikelihood, ax: Axes | None = None) -> Figure:
    r"""A profile likelihood with its interval.

    Args:
        found: From :func:`~pyro_amortized.population.likelihood_profiles.profile_likelihood`.
        ax: Draw here. Default: a figure of its own.
    """
    ax = ax or Figure(figsize=(4.2, 3.2), layout="constrained").subplots()
    limit = float(scipy.stats.chi2.ppf(found.level, 1))
    ax.plot(found.values.numpy(), found.minus2ll.numpy(), "o-", ms=3, color=OBSERVED)
    ax.axhline(limit, color=MUTED, lw=1, ls=":")
    for bound in (found.lower, found.upper):
        ax.axvline(bound, color=FITTED, lw=1, ls="--")
    ax.set_ylim(-0.2, 2.5 * limit)
    title = f"{100 * found.level:.0f} %: {found.lower:.4g} to {found.upper:.4g}"
    labelled(ax, found.name, "-2 log likelihood, relative", title)
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure


def forest(fits: PopulationFit | Mapping[str, PopulationFit], ax: Axes | None = None) -> Figure:
    r"""Estimates with their 95 % intervals, relative to the first fit's estimate in units of its
    standard error; of several fits side by side.

    Args:
        fits: A fit, or several by name.
        ax: Draw here. Default: a figure of its own.
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
            unit = unit if unit > 0 else 1.0  # also where it is not known
            y = -j - 0.18 * (k - (len(tables) - 1) / 2)
            ends = [(x - first.estimate) / unit for x in (row.lower, row.upper)]
            color = OBSERVED if k == 0 else FITTED
            ax.plot(ends, [y, y], color=color, lw=1.2)
            ax.plot((row.estimate - first.estimate) / unit, y, MARKERS[k % 6], ms=4, color=color)
        ax.plot([], [], MARKERS[k % 6], ms=4, color=OBSERVED if k == 0 else FITTED, label=label)
    ax.axvline(0, color=MUTED, lw=0.8)
    if len(tables) > 1:
        ax.legend(frameon=False, fontsize=8)
    labelled(ax, "estimate and 95 % interval, in standard errors of the first", "")
    labels = [f"{n}  {next(t[n].estimate for t in tables.values() if n in t):.4g}" for n in names]
    ax.set_yticks([-j for j in range(len(names))], labels)
    figure = ax.figure
    assert isinstance(figure, Figure)
    return figure
