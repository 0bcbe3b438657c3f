"""Quantiles of weighted draws."""

import torch
from torch import Tensor


def weighted_quantiles(values: Tensor, weights: Tensor, levels: Tensor) -> Tensor:
    r"""Quantiles of weighted draws: the smallest value up to which the weights reach the level.

    Args:
        values: Shape ``(draw, individual, *event)``.
        weights: Normalized weights, shape ``(draw, individual)``.
        levels: Levels between 0 and 1, shape ``(level,)``.

    Returns:
        Shape ``(level, individual, *event)``.

    Example:
        >>> values = torch.tensor([[3.0], [1.0], [2.0]])
        >>> weights = torch.tensor([[0.2], [0.5], [0.3]])
        >>> weighted_quantiles(values, weights, torch.tensor([0.4, 0.6]))
        tensor([[1.],
                [2.]])
    """
    num_draws, num = values.shape[:2]
    flat = values.reshape(num_draws, num, -1)
    ordered, order = flat.sort(0)
    wide = weights.unsqueeze(-1).expand_as(flat)
    below = wide.gather(0, order).cumsum(0)
    # The sum of all weights may lie below 1 by a rounding error.
    wanted = levels.to(below).reshape(-1, 1, 1) * below[-1]
    index = torch.stack([(below < level).sum(0) for level in wanted]).clamp(max=num_draws - 1)
    return ordered.gather(0, index).reshape(len(levels), num, *values.shape[2:])
