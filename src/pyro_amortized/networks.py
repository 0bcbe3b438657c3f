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
