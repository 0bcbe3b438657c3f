r"""Draws of the individuals that remain fixed while the population moves.

A draw of weight zero contributes nothing to the marginal likelihood, but it can spoil its gradient:
the model may have no gradient there, and zero times NaN is NaN. Such draws are replaced before the
model is run at them, and their weights are set to zero afterwards.
"""

import torch
from torch import Tensor


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
