r"""Random effects: their distribution, correlation, and what covariates explain."""

import math

import numpy as np
import torch
from matplotlib.figure import Figure

from ...errors import CohortError
from ...population.fit_result import PopulationFit
from ...sampling.individuals import IndividualPosteriors
from ..residual_analysis import eta, individuals_of
from .style import FITTED, MUTED, OBSERVED, grid, labelled


def random_effects(result: PopulationFit | IndividualPosteriors, *, seed: int = 0) -> Figure:
    r"""Standardised random effects (conditional means): histograms with the standard normal and
    their shrinkage on the diagonal, each pair below it. With strong shrinkage such plots show the
    model, not the data.

    Args:
        result: A fit, or individual posteriors.
        seed: Seed of the draws from the population.
    """
    individuals = individuals_of(result)
    values, names = eta(individuals, seed=seed).numpy(), individuals.structure.latent_names
    num = len(names)
    figure, axes = grid(num * num, num, 2.4, 2.2)
    x = np.linspace(-3.5, 3.5, 100)
    for i in range(num):
        for j in range(num):
            ax = axes[i * num + j]
            if j > i:
                ax.set_visible(False)
            elif i == j:
                ax.hist(values[:, i], bins=12, density=True, color=MUTED, alpha=0.6)
                ax.plot(x, np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), color=FITTED, lw=1.4)
                shrinkage = 100 * (1 - values[:, i].std(ddof=1)) if len(values) > 1 else math.nan
                labelled(ax, names[i], "", f"shrinkage {shrinkage:.0f} %")
            else:
                ax.plot(values[:, j], values[:, i], "o", ms=3, color=OBSERVED)
                r = np.corrcoef(values[:, j], values[:, i])[0, 1] if len(values) > 2 else math.nan
                labelled(ax, names[j], names[i], f"r = {r:.2f}")
    return figure


def effects_by_covariate(result: PopulationFit | IndividualPosteriors, *, seed: int = 0) -> Figure:
    r"""Standardised random effects against every covariate, with a least-squares line.

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
            "at least one.",
            "pass `covariates={...}` to the cohort, or leave this figure out.",
        )
    values, names = eta(individuals, seed=seed), individuals.structure.latent_names
    figure, axes = grid(len(names) * len(covariates), len(covariates), 2.8, 2.2)
    for i, name in enumerate(names):
        for j, (label, x) in enumerate(covariates.items()):
            ax = axes[i * len(covariates) + j]
            x, y = x.double(), values[:, i]
            ax.axhline(0, color=MUTED, lw=0.8)
            ax.plot(x.numpy(), y.numpy(), "o", ms=3, color=OBSERVED)
            r = math.nan
            if len(x) > 2 and float(x.std()) > 0:
                r = float(torch.corrcoef(torch.stack([x, y]))[0, 1])
                ends = torch.stack([x.min(), x.max()])
                line = y.mean() + r * y.std() / x.std() * (ends - x.mean())
                ax.plot(ends.numpy(), line.numpy(), color=FITTED, lw=1.4)
            labelled(ax, label, name, f"r = {r:.2f}")
    return figure
