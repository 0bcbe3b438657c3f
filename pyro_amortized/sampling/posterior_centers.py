r"""One point for each individual that its own posterior finds likely.

The posterior mean is such a point, unless the posterior has several modes or is strongly curved:
then it may lie between them, where the density is small, and predictions there describe neither.
The mean is replaced where its density,

.. math:: p(y_i \mid u)\, p(u \mid \Psi) \quad \text{at} \quad u = E[u \mid y_i],

is smaller than that of half of the posterior draws; in one mode that is nearly normal it is larger
than that of nearly all. The draws are then split into two groups (two means), and the mean of the
group of the most likely draw takes its place, or that draw itself where it is more likely.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .individuals import IndividualPosteriors
from .weighted_quantiles import weighted_quantiles


@dataclass(frozen=True)
class CenterSettings:
    r"""When the posterior mean is replaced.

    Args:
        level: Share of the posterior draws whose density is smaller than that of the mean, below
            which the mean is replaced. Of a normal posterior it is more than 0.99.
        num_steps: Steps of the two means, which rarely need more than five.
    """

    level: float = 0.5
    num_steps: int = 10


DEFAULTS = CenterSettings()


def posterior_centers(individuals: IndividualPosteriors) -> Tensor:
    r"""The posterior mean of each individual, or the mean of its larger mode.

    Args:
        individuals: Posterior draws.

    Returns:
        Unconstrained, shape ``(individual, latent)``. Without a density of the model, the means.
    """
    means = individuals.moments()[0]
    if not individuals.structure.has_density:
        return means
    log_density = individuals.log_weights + individuals.log_proposal
    at_means = _log_density(individuals, means.unsqueeze(0))[0]
    level = torch.tensor([1 - DEFAULTS.level], dtype=torch.float64)
    draws = log_density.nan_to_num(-torch.inf).unsqueeze(-1)
    usual = weighted_quantiles(draws, individuals.weights, level)[0, :, 0]
    rows = (~(at_means >= usual)).nonzero()[:, 0]
    if len(rows) == 0:
        return means
    part = individuals.take(rows)
    best = log_density[:, rows].nan_to_num(-torch.inf).argmax(0)
    first = part.unconstrained[best, torch.arange(len(rows))]
    candidates = torch.stack([first, _mean_of_group(part, first)])
    likely = _log_density(part, candidates).nan_to_num(-torch.inf).argmax(0)
    centers = means.clone()
    centers[rows] = candidates[likely, torch.arange(len(rows))]
    return centers


def _log_density(individuals: IndividualPosteriors, places: Tensor) -> Tensor:
    """Log density of data and parameters together at ``(place, individual, latent)``."""
    with torch.no_grad():
        density = individuals.structure.log_density(
            individuals.cohort, places, individuals.population
        )
    return density.total


def _mean_of_group(individuals: IndividualPosteriors, first: Tensor) -> Tensor:
    """Mean of the draws of the group around a draw, shape ``(individual, latent)``."""
    draws, weights = individuals.unconstrained, individuals.weights
    scale = individuals.moments()[1].clamp(min=torch.finfo(torch.float64).tiny)
    distance = ((draws - first) / scale).square().sum(-1)
    farthest = (distance * (weights > 0) * weights.sqrt()).argmax(0)
    centers = torch.stack([first, draws[farthest, torch.arange(len(farthest))]])
    for _ in range(DEFAULTS.num_steps):
        to_centers = ((draws.unsqueeze(1) - centers) / scale).square().sum(-1)  # (draw, 2, row)
        mine = to_centers[:, 0] <= to_centers[:, 1]
        parts = torch.stack([weights * mine, weights * ~mine])
        total = parts.sum(1).clamp(min=torch.finfo(torch.float64).tiny)
        centers = torch.einsum("gkn,knd->gnd", parts, draws) / total.unsqueeze(-1)
    nearest = ((first - centers) / scale).square().sum(-1).argmin(0)
    return centers[nearest, torch.arange(len(nearest))]
