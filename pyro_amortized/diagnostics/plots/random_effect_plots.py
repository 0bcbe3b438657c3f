r"""Figures of the random effects: distribution, correlation, and dependence on covariates.

The standardised random effect of an individual is the posterior mean of its parameter less the mean
of the population, in standard deviations of the population, in unconstrained coordinates.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.stats
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...errors import CohortError
from ...population.results.fit_result import PopulationFit
from ...sampling.individuals import IndividualPosteriors
from ..effects.random_effects import standardized_effects
from ..result_selection import individuals_of
from .panels import FITTED, MUTED, OBSERVED, label_axes, panel_grid


def random_effects(result: PopulationFit | IndividualPosteriors, *, seed: int = 0) -> Figure:
    r"""Distribution and correlation of standardised random effects.

    The diagonal has histograms with the standard normal density and the shrinkage; below it each
    pair is shown. With strong shrinkage such figures show the model more than the data.

    Args:
        result: A fit, or individual posteriors.
        seed: Seed of the draws from the population.
    """
    individuals = individuals_of(result)
    effects = standardized_effects(individuals, seed)
    values, names, num = effects.means.numpy(), effects.names, len(effects.names)
    figure, axes = panel_grid(num * num, num, 2.4, 2.2)
    x = np.linspace(-3.5, 3.5, 100)
    for i in range(num):
        for j in range(num):
            ax = axes[i * num + j]
            if j > i:
                ax.set_visible(False)
            elif i == j:
                ax.hist(values[:, i], bins=12, density=True, color=MUTED, alpha=0.6)
                ax.plot(x, scipy.stats.norm.pdf(x), color=FITTED, lw=1.4)
                shrinkage = 100 * (1 - values[:, i].std(ddof=1)) if len(values) > 1 else math.nan
                label_axes(ax, names[i], "", f"shrinkage {shrinkage:.0f} %")
            else:
                ax.plot(values[:, j], values[:, i], "o", ms=3, color=OBSERVED)
                r = np.corrcoef(values[:, j], values[:, i])[0, 1] if len(values) > 2 else math.nan
                label_axes(ax, names[j], names[i], f"r = {r:.2f}")
    return figure


def effects_by_covariate(result: PopulationFit | IndividualPosteriors, *, seed: int = 0) -> Figure:
    r"""Standardised random effects against each covariate, with a least-squares line.

    Args:
        result: A fit, or individual posteriors.
        seed: Seed of the draws from the population.

    Raises:
        CohortError: There are no covariates.
    """
    individuals = individuals_of(result)
    covariates = individuals.cohort.covariates
    if not covariates:
        raise CohortError(
            "The cohort has no covariates.",
            "a cohort with at least one covariate.",
            "pass `covariates={...}` to the cohort, or leave this figure out.",
        )
    effects = standardized_effects(individuals, seed)
    values, names = effects.means, effects.names
    figure, axes = panel_grid(len(names) * len(covariates), len(covariates), 2.8, 2.2)
    for i, name in enumerate(names):
        for j, (label, x) in enumerate(covariates.items()):
            ax = axes[i * len(covariates) + j]
            x, y = x.double(), values[:, i]
            ax.axhline(0, color=MUTED, lw=0.8)
            ax.plot(x.numpy(), y.numpy(), "o", ms=3, color=OBSERVED)
            categories = individuals.cohort.categories.get(label, ())
            title = _means(ax, x, y, categories) if categories else _line(ax, x, y)
            label_axes(ax, label, name, title)
    return figure


def _line(ax: Axes, x: Tensor, y: Tensor) -> str:
    """Draw the regression line; the correlation in words."""
    if len(x) < 3 or float(x.std()) == 0:
        return ""
    r = float(torch.corrcoef(torch.stack([x, y]))[0, 1])
    ends = torch.stack([x.min(), x.max()])
    line = y.mean() + r * y.std() / x.std() * (ends - x.mean())
    ax.plot(ends.numpy(), line.numpy(), color=FITTED, lw=1.4)
    return f"r = {r:.2f}"


def _means(ax: Axes, x: Tensor, y: Tensor, categories: Sequence[str]) -> str:
    """Draw the mean of each category, and its name below."""
    for level in x.unique().tolist():
        mean = float(y[x == level].mean())
        ax.plot([level - 0.3, level + 0.3], [mean, mean], color=FITTED, lw=1.4)
    ax.set_xticks(range(len(categories)), categories)
    ax.set_xlim(-0.6, len(categories) - 0.4)
    return "means"
