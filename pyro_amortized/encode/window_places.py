r"""Tokens in places that windows of time give them."""

import torch
from torch import Tensor

MaskedTokens = tuple[Tensor, Tensor]


def in_windows(
    times: Tensor, edges: Tensor, tokens: Tensor, mask: Tensor
) -> tuple[MaskedTokens, MaskedTokens]:
    r"""The tokens that have a place, and the other ones.

    The first token of an individual in each window has the place of this window. Further tokens in
    the same window have none.

    Args:
        times: Times of the tokens, shape ``(individual, time)``.
        edges: Increasing times between the windows, shape ``(window - 1,)``.
        tokens: Shape ``(individual, time, feature)``.
        mask: Which tokens are present, shape ``(individual, time)``.

    Returns:
        Tokens ``(individual, window, feature)`` with their mask, and tokens ``(individual, other,
        feature)`` with theirs, as many as the individual with most of them has.
    """
    num, width, num_windows = *times.shape, len(edges) + 1
    window = torch.searchsorted(edges, times.double().contiguous(), right=True)
    window = torch.where(mask, window, num_windows)
    # In the order of the times; a stable order keeps that of equal times.
    order = times.argsort(dim=1, stable=True)
    ordered = window.gather(1, order)
    earlier = torch.zeros(num, width, dtype=torch.bool, device=times.device)
    first = torch.full((num, num_windows + 1), width, dtype=torch.long, device=times.device)
    position = torch.arange(width, device=times.device).expand(num, -1)
    first.scatter_reduce_(1, ordered, position, "amin")
    is_first = (first.gather(1, ordered) == position) & (ordered < num_windows)
    has_place = earlier.scatter(1, order, is_first)
    rows, columns = has_place.nonzero(as_tuple=True)
    placed = tokens.new_zeros(num, num_windows, tokens.shape[-1])
    placed_mask = mask.new_zeros(num, num_windows)
    at = window[rows, columns]
    placed[rows, at], placed_mask[rows, at] = tokens[rows, columns], True
    return (placed, placed_mask), _gathered(tokens, mask & ~has_place)


def _gathered(tokens: Tensor, mask: Tensor) -> MaskedTokens:
    """The tokens of a mask, moved to the left, without columns that are empty for all."""
    most = int(mask.sum(1).max()) if mask.numel() else 0
    order = (~mask).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
    index = order.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    return tokens.gather(1, index), mask.gather(1, order)
