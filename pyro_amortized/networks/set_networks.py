r"""Summary networks that read tokens as a set: pooling and attention."""

import torch
from torch import Tensor, nn

from .multilayer_perceptron import mlp
from .token_layout import TokenLayout

SUM_DIVISOR = 4  # keeps the size of a sum over a usual number of tokens near that of one token


class DeepSet(nn.Module):
    r"""Permutation-invariant summary of recorded tokens.

    .. math:: s = \rho\Big( \tfrac14 \sum_j \gamma(\tau_j),\; \text{softmax-weighted means of }
              \gamma(\tau_j),\; \log(1 + n) \Big)

    over the n recorded tokens :math:`\tau_j`, with multilayer perceptrons :math:`\gamma` and
    :math:`\rho`. The sum grows with the number of tokens, as sufficient statistics do, and the
    weighted means select the tokens that matter. If nothing was recorded, all of them are zero.

    Args:
        layout: Sizes of the tokens. The static features are appended to every token.
        num_summary: Length of the summary.
        width: Width of the hidden layers.
        num_heads: Number of softmax-weighted means.

    References:
        Zaheer et al. (2017), Deep sets; Lee et al. (2019), Set transformer (pooling by attention).
    """

    def __init__(
        self, layout: TokenLayout, num_summary: int = 64, width: int = 64, num_heads: int = 4
    ) -> None:
        super().__init__()
        self.settings = {"num_summary": num_summary, "width": width, "num_heads": num_heads}
        self.num_summary = num_summary
        num_static = layout.num_static
        self.token = mlp([layout.num_features + num_static, width, width])
        self.score = nn.Linear(width, num_heads)
        self.pooled = mlp([(num_heads + 1) * width + 1 + num_static, 2 * width, num_summary])

    def forward(self, tokens: Tensor, mask: Tensor, static: Tensor) -> Tensor:
        r"""Summaries.

        Args:
            tokens: Shape ``(individual, token, feature)``.
            mask: True where the token is present, shape ``(individual, token)``.
            static: Static features, shape ``(individual, static)``.

        Returns:
            Shape ``(individual, num_summary)``.
        """
        num, present = len(mask), mask.unsqueeze(-1)
        tokens = torch.where(present, tokens, torch.zeros_like(tokens))
        first, rest = self.token[0], self.token[1:]
        assert isinstance(first, nn.Linear)
        # The part of the first layer that reads the static features is the same for all tokens of
        # an individual, so it is computed once.
        of_tokens, of_static = first.weight.split([tokens.shape[-1], static.shape[-1]], 1)
        common = nn.functional.linear(static, of_static, first.bias)
        hidden = nn.functional.linear(tokens, of_tokens) + common.unsqueeze(1)
        hidden = nn.functional.silu(rest(hidden))
        attention = self.score(hidden).masked_fill(~present, -torch.inf).softmax(1).nan_to_num(0.0)
        weights = torch.cat([attention, present.to(tokens.dtype) / SUM_DIVISOR], -1)
        pooled = (weights.transpose(1, 2) @ hidden).reshape(num, -1)
        count = mask.sum(1, keepdim=True).to(tokens.dtype).log1p()
        summary: Tensor = self.pooled(torch.cat([pooled, count, static], -1))
        return summary


class AttentionNetwork(nn.Module):
    r"""Self-attention over recorded tokens and one additional token, whose output is the summary.

    The order of the tokens has no effect, because their times are among their features. If nothing
    was recorded, the additional token attends only to itself.

    Args:
        layout: Sizes of the tokens.
        num_summary: Length of the summary.
        width: Width of the hidden tokens.
        num_blocks: Number of blocks, each of attention and a multilayer perceptron, with layer
            normalization before both.
        num_heads: Number of heads of each attention.

    References:
        Vaswani et al. (2017), Attention is all you need; Lee et al. (2019), Set transformer.
    """

    def __init__(
        self,
        layout: TokenLayout,
        num_summary: int = 64,
        width: int = 64,
        num_blocks: int = 2,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        self.settings = {
            "num_summary": num_summary,
            "width": width,
            "num_blocks": num_blocks,
            "num_heads": num_heads,
        }
        self.num_summary = num_summary
        self.token = mlp([layout.num_features, width, width])
        self.collector = nn.Linear(layout.num_static + 1, width)
        self.blocks = nn.ModuleList(_AttentionBlock(width, num_heads) for _ in range(num_blocks))
        self.result = mlp([width + 1 + layout.num_static, 2 * width, num_summary])

    def forward(self, tokens: Tensor, mask: Tensor, static: Tensor) -> Tensor:
        """Summaries; the arguments and the result are those of :class:`DeepSet`."""
        tokens = torch.where(mask.unsqueeze(-1), tokens, torch.zeros_like(tokens))
        count = mask.sum(1, keepdim=True).to(tokens.dtype).log1p()
        first = self.collector(torch.cat([count, static], -1)).unsqueeze(1)
        hidden = torch.cat([first, self.token(tokens)], 1)
        keys = torch.cat([torch.ones_like(mask[:, :1]), mask], 1)[:, None, None]
        for block in self.blocks:
            hidden = block(hidden, keys)
        summary: Tensor = self.result(torch.cat([hidden[:, 0], count, static], -1))
        return summary


class _AttentionBlock(nn.Module):
    """Attention and a multilayer perceptron, both residual, with layer normalization before."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.hidden = mlp([width, 2 * width, width])

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        num, length, width = x.shape
        parts = self.queries_keys_values(self.before(x))
        q, k, v = parts.reshape(num, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        x = x + self.joined(attended.transpose(1, 2).reshape(num, length, width))
        result: Tensor = x + self.hidden(self.between(x))
        return result
