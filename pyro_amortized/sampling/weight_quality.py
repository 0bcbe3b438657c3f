r"""Decisions on the quality of importance weights.

Weights are *poor* if they have few effective draws or a Pareto k above 0.7; such an individual is
refined. Weights that remain *unreliable* after the refinement are named in a warning.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .importance_weights import PARETO, ImportanceEstimate, importance_estimate
from .refinement_settings import REFINEMENT


@dataclass(frozen=True)
class ReliabilitySettings:
    r"""Limits below which the weights of an individual are unreliable.

    Args:
        min_ess: Effective draws, at which the Monte Carlo error of the log likelihood of an
            individual is about 1 / sqrt(20) = 0.2.
        min_efficiency: The same as a share of the draws, where there are fewer than 200 draws.
        even_efficiency: Pareto k counts where a smaller share of the draws is effective. The tail
            of nearly equal weights is noise: of 500 posteriors with guides that were 99.7 %
            effective (the worst 85 %), 67 had a k above the limit, and were refined to draws that
            are 51 % effective.
    """

    min_ess: float = 20.0
    min_efficiency: float = 0.1
    even_efficiency: float = 0.8


RELIABILITY = ReliabilitySettings()


def is_poor(
    log_weights: Tensor, min_efficiency: float | Tensor, max_k: float = PARETO.limit
) -> Tensor:
    r"""Individuals whose weights are poor, shape ``(individual,)``.

    Args:
        log_weights: Shape ``(draw, individual)``.
        min_efficiency: Smallest sufficient share of effective draws, a number or one per
            individual.
        max_k: Largest sufficient Pareto k.
    """
    estimate = importance_estimate(log_weights)
    few = estimate.ess < min_efficiency * len(log_weights)
    return few | has_heavy_tail(estimate.ess, estimate.pareto_k, len(log_weights), max_k)


def has_heavy_tail(
    ess: Tensor, pareto_k: Tensor, num_draws: int | Tensor, max_k: float = PARETO.limit
) -> Tensor:
    """Whether Pareto k is above the limit (or NaN) and the weights vary enough for it to mean
    anything, shape ``(individual,)``.
    """
    uneven = ~(ess >= RELIABILITY.even_efficiency * num_draws)
    return uneven & ~(pareto_k <= max_k)


def unreliable(estimate: ImportanceEstimate, num_draws: int) -> Tensor:
    r"""Individuals whose weights cannot be trusted, shape ``(individual,)``.

    Args:
        estimate: Effective sample size and Pareto k of their weights.
        num_draws: Number of draws of each individual.
    """
    min_ess = min(RELIABILITY.min_ess, RELIABILITY.min_efficiency * num_draws)
    few = estimate.ess < min_ess
    return few | has_heavy_tail(estimate.ess, estimate.pareto_k, num_draws)


def comparable_ess(log_weights: Tensor) -> Tensor:
    """Effective draws, for comparing two sets of draws; those with an unreliable Pareto k count
    for a hundredth.
    """
    estimate = importance_estimate(log_weights)
    heavy = has_heavy_tail(estimate.ess, estimate.pareto_k, len(log_weights))
    return estimate.ess * torch.where(heavy, REFINEMENT.unreliable_factor, 1.0)
