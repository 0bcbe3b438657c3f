r"""Networks that read tokens in their order."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from .multilayer_perceptron import mlp
from .token_layout import TokenLayout


class RecurrentNetwork(nn.Module):
    r"""GRU or LSTM over the recorded tokens, in their order; what is masked is left out (packed).

    The summary is the last state; with nothing recorded it is zero, beside a count of zero.

    Args:
        layout: The tokens; every one sees the static features.
        width: Size of the state, and length of the summary.
        num_layers: Layers of the recurrence.
        cell: ``torch.nn.GRU`` or ``torch.nn.LSTM``.
    """

    def __init__(
        self,
        layout: TokenLayout,
        width: int = 64,
        num_layers: int = 1,
        cell: type[nn.GRU | nn.LSTM] = nn.GRU,
    ) -> None:
        super().__init__()
        self.settings = {"width": width, "num_layers": num_layers, "cell": cell.__name__}
        self.num_summary = width + 1
        size = layout.num_features + layout.num_static
        self.recurrence = cell(size, width, num_layers, batch_first=True)

    def forward(self, tokens: Tensor, mask: Tensor, static: Tensor) -> Tensor:
        """Summaries; arguments and result as of :class:`~pyro_amortized.networks.DeepSet`."""
        order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)
        kept = torch.where(mask.unsqueeze(-1), tokens, torch.zeros_like(tokens))
        kept = kept.gather(1, order.unsqueeze(-1).expand_as(kept))
        longest = max(1, int(mask.sum(1).max()))
        inputs = torch.cat([kept, static.unsqueeze(1).expand(-1, kept.shape[1], -1)], -1)
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(
            inputs[:, :longest], lengths, batch_first=True, enforce_sorted=False
        )
        state = self.recurrence(packed)[1]
        last = (state[0] if isinstance(state, tuple) else state)[-1]
        count = mask.sum(1, keepdim=True).to(tokens.dtype).log1p()
        return torch.cat([last * (count > 0), count], -1)


class ConvolutionalNetwork(nn.Module):
    r"""Temporal convolutions over the tokens in their columns, pooled over those that are there.

    Residual layers with growing dilation; what is masked is zero before each of them, so that
    padding is what convolution itself pads with.

    Args:
        layout: The tokens.
        num_summary: Length of the summary.
        width: Channels.
        num_layers: Layers, of dilation 1, 2, 4, ...
        kernel_size: Length of a kernel, odd.
    """

    def __init__(
        self,
        layout: TokenLayout,
        num_summary: int = 64,
        width: int = 64,
        num_layers: int = 3,
        kernel_size: int = 5,
    ) -> None:
        super().__init__()
        self.settings = {
            "num_summary": num_summary,
            "width": width,
            "num_layers": num_layers,
            "kernel_size": kernel_size,
        }
        self.num_summary = num_summary
        self.token = nn.Linear(layout.num_features + layout.num_static, width)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, kernel_size, padding="same", dilation=2**j)
            for j in range(num_layers)
        )
        self.pooled = mlp([2 * width + 1 + layout.num_static, 2 * width, num_summary])

    def forward(self, tokens: Tensor, mask: Tensor, static: Tensor) -> Tensor:
        """Summaries; arguments and result as of :class:`~pyro_amortized.networks.DeepSet`."""
        there = mask.unsqueeze(1).to(tokens.dtype)
        tokens = torch.where(mask.unsqueeze(-1), tokens, torch.zeros_like(tokens))
        static_rows = static.unsqueeze(1).expand(-1, mask.shape[1], -1)
        hidden = self.token(torch.cat([tokens, static_rows], -1)).transpose(1, 2) * there
        for layer in self.layers:
            hidden = (hidden + nn.functional.silu(layer(hidden))) * there
        largest = hidden.masked_fill(there == 0, -torch.inf).amax(-1)
        largest = torch.where(mask.any(1, keepdim=True), largest, torch.zeros_like(largest))
        count = mask.sum(1, keepdim=True).to(tokens.dtype).log1p()
        pooled = torch.cat([hidden.sum(-1) / 4, largest, count, static], -1)
        summary: Tensor = self.pooled(pooled)
        return summary
