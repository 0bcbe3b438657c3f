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


def is_negligible(log_weights: Tensor) -> Tensor:
    """True for draws that contribute nothing, shape ``(draw, individual)`` as the log weights."""
    largest = log_weights.amax(0)
    return (log_weights == -math.inf) | (log_weights < largest - NEGLIGIBLE)


def replace_impossible_draws(draws: Tensor, log_weights: Tensor, impossible: Tensor) -> Tensor:
    r"""Draws, some of which are replaced by the best draw of the individual.

    Args:
        draws: Shape ``(draw, individual, latent)``.
        log_weights: Shape ``(draw, individual)``.
        impossible: True for the draws to replace, shape ``(draw, individual)``.

    Returns:
        The draws, same shape.
    """
    if not bool(impossible.any()):
        return draws
    best = log_weights.argmax(0)
    best_draws = draws[best, torch.arange(draws.shape[1])]
    return torch.where(impossible.unsqueeze(-1), best_draws, draws)
