r"""Draws of the individuals that remain fixed while the population moves.

A draw of weight zero contributes nothing to the marginal likelihood, but it can spoil its gradient:
the model may have no gradient there, and zero times NaN is NaN. Such draws are replaced before the
model is run at them, and their weights are set to zero afterwards. The same is done with draws of
negligible weight, whose log density can have derivatives of any size.
"""

import math

import torch
from torch import Tensor

# Log weight, below the largest of the individual, that is negligible: 4e-18 of it.
NEGLIGIBLE = 40.0


def without_negligible(draws: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Draws, of which those that contribute nothing are replaced by the best of the individual.

    Args:
        draws: Shape ``(draw, individual, latent)``.
        log_weights: Shape ``(draw, individual)``.

    Returns:
        The draws, same shape, and which were replaced, shape ``(draw, individual)``.
    """
    largest = log_weights.amax(0)
    negligible = (log_weights == -math.inf) | (log_weights < largest - NEGLIGIBLE)
    if not bool(negligible.any()):
        return draws, negligible
    best = log_weights.argmax(0)
    best_draws = draws[best, torch.arange(draws.shape[1])]
    return torch.where(negligible.unsqueeze(-1), best_draws, draws), negligible
