r"""Summary networks: a set of tokens with a mask -> a summary of fixed length.

Every network honours the mask exactly: neither what stands under it, nor how much padding there is,
nor the rest of the batch changes the summary of an individual. They know no data, only ``(tokens,
mask, static)``.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with SiLU between them.

    Example:
        >>> [type(layer).__name__ for layer in mlp([3, 8, 2])]
        ['Linear', 'SiLU', 'Linear']
    """
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class DeepSet(nn.Module):
    r"""Permutation-invariant summary of recorded tokens.

    .. math:: s = \rho\Big( \tfrac14 \sum_j \gamma(\tau_j),\; \text{softmax-weighted means of }
              \gamma(\tau_j),\; \log(1 + n) \Big)

    over the n recorded tokens :math:`\tau_j`: sums collect information as data accumulate (as
    sufficient statistics do), the weighted means pick out the tokens that matter. No token gives a
    sum of zero.

    Args:
        num_features: Number of features of a token.
        num_static: Number of static features; every token sees them.
        num_summary: Length of the summary.
        width: Width of the hidden layers.
        num_heads: Number of softmax-weighted means.

    References:
        Zaheer et al. (2017), Deep sets; Lee et al. (2019), Set transformer (pooling by attention).
    """

    def __init__(
        self,
        num_features: int,
        num_static: int,
        num_summary: int = 64,
        width: int = 64,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        self.settings = {"num_summary": num_summary, "width": width, "num_heads": num_heads}
        self.num_summary = num_summary
        self.token = mlp([num_features + num_static, width, width])
        self.score = nn.Linear(width, num_heads)
        self.pooled = mlp([(num_heads + 1) * width + 1 + num_static, 2 * width, num_summary])

    def forward(self, tokens: Tensor, mask: Tensor, static: Tensor) -> Tensor:
        r"""Summaries.

        Args:
            tokens: Shape ``(individual, token, feature)``.
            mask: True where the token is there, shape ``(individual, token)``.
            static: Shape ``(individual, static)``.

        Returns:
            Shape ``(individual, num_summary)``.
        """
        num, length = mask.shape
        there = mask.unsqueeze(-1)
        tokens = torch.where(there, tokens, torch.zeros_like(tokens))
        hidden = nn.functional.silu(
            self.token(torch.cat([tokens, static.unsqueeze(1).expand(-1, length, -1)], -1))
        )
        attention = self.score(hidden).masked_fill(~there, -torch.inf).softmax(1).nan_to_num(0.0)
        weights = torch.cat([attention, there.to(tokens.dtype) / 4], -1)
        pooled = (weights.transpose(1, 2) @ hidden).reshape(num, -1)
        count = mask.sum(1, keepdim=True).to(tokens.dtype).log1p()
        summary: Tensor = self.pooled(torch.cat([pooled, count, static], -1))
        return summary


class GridNetwork(nn.Module):
    r"""Summary of values in fixed places: one hidden layer over all of them, with their indicators.

    Tokens behind the places (doses) go through a :class:`DeepSet`. What is not recorded enters as
    zero beside an indicator of zero; more columns than places cannot be read, and are refused by
    the encoder that lays out the grid.

    Args:
        num_features: Number of features of a token.
        num_static: Number of static features.
        num_places: Number of tokens in fixed places; they come first.
        num_values: Leading features of these tokens that are read: values and indicators.
        has_more: Whether other tokens follow.
        width: Width of the hidden layer, and length of the summary.
    """

    def __init__(
        self,
        num_features: int,
        num_static: int,
        *,
        num_places: int,
        num_values: int,
        has_more: bool = False,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.settings = {
            "num_places": num_places,
            "num_values": num_values,
            "has_more": has_more,
            "width": width,
        }
        self.num_places, self.num_values, self.num_summary = num_places, num_values, width
        self.others = DeepSet(num_features, num_static, 32, 32, 2) if has_more else None
        num_inputs = num_places * num_values + num_static + (32 if has_more else 0)
        self.layer = nn.Linear(num_inputs, width)

    def forward(self, tokens: Tensor, mask: Tensor, static: Tensor) -> Tensor:
        """Summaries; arguments and result as of :class:`DeepSet`."""
        there = mask[:, : self.num_places].unsqueeze(-1)
        values = tokens[:, : self.num_places, : self.num_values]
        parts = [torch.where(there, values, torch.zeros_like(values)).flatten(1), static]
        if self.others is not None:
            rest = slice(self.num_places, None)
            parts.append(self.others(tokens[:, rest], mask[:, rest], static))
        summary: Tensor = nn.functional.silu(self.layer(torch.cat(parts, -1)))
        return summary
