r"""Draws that stay fixed while the population moves."""

import torch
from torch import Tensor


def with_stand_ins(draws: Tensor, log_weights: Tensor, dead: Tensor) -> Tensor:
    r"""Draws, with the individual's best in the place of some: what a program gives at a draw that
    cannot be may have no gradient, and zero times NaN is NaN.

    Args:
        draws: Shape ``(draw, individual, latent)``.
        log_weights: Shape ``(draw, individual)``.
        dead: Which to replace, shape ``(draw, individual)``.
    """
    if not bool(dead.any()):
        return draws
    best = log_weights.argmax(0)
    return torch.where(dead.unsqueeze(-1), draws[best, torch.arange(draws.shape[1])], draws)
