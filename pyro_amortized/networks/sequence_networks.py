r"""Summary networks that read tokens in their order: recurrence and convolution."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from .multilayer_perceptron import mlp
from .set_networks import SUM_DIVISOR
from .token_layout import TokenLayout


class RecurrentNetwork(nn.Module):
    r"""GRU or LSTM over the recorded tokens in their order; masked tokens are skipped.

    The summary is the last state and :math:`\log(1 + n)` for the number n of recorded tokens. If
    nothing was recorded, both are zero.

    Args:
        layout: Sizes of the tokens. The static features are appended to every token.
        width: Size of the state. The summary has length ``width + 1``.
        num_layers: Number of layers of the recurrence.
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
        """Summaries; the arguments and the result are those of
        :class:`~pyro_amortized.networks.DeepSet`.
        """
        # Recorded tokens come first, in their order.
        order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)
        recorded = torch.where(mask.unsqueeze(-1), tokens, torch.zeros_like(tokens))
        recorded = recorded.gather(1, order.unsqueeze(-1).expand_as(recorded))
        longest = max(1, int(mask.sum(1).max()))
        inputs = torch.cat([recorded, static.unsqueeze(1).expand(-1, recorded.shape[1], -1)], -1)
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(
            inputs[:, :longest], lengths, batch_first=True, enforce_sorted=False
        )
        state = self.recurrence(packed)[1]
        last = (state[0] if isinstance(state, tuple) else state)[-1]
        count = mask.sum(1, keepdim=True).to(tokens.dtype).log1p()
        return torch.cat([last * (count > 0), count], -1)


class ConvolutionalNetwork(nn.Module):
    r"""Convolutions over the tokens in their columns, pooled over the tokens that are not masked.

    The layers are residual, with dilation 1, 2, 4, ... Masked tokens are set to zero before every
    layer, because convolution pads with zeros too. The amount of padding then has no effect.

    Args:
        layout: Sizes of the tokens.
        num_summary: Length of the summary.
        width: Number of channels of the layers.
        num_layers: Number of layers.
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
        """Summaries; the arguments and the result are those of
        :class:`~pyro_amortized.networks.DeepSet`.
        """
        present = mask.unsqueeze(1).to(tokens.dtype)
        tokens = torch.where(mask.unsqueeze(-1), tokens, torch.zeros_like(tokens))
        static_rows = static.unsqueeze(1).expand(-1, mask.shape[1], -1)
        hidden = self.token(torch.cat([tokens, static_rows], -1)).transpose(1, 2) * present
        for layer in self.layers:
            hidden = (hidden + nn.functional.silu(layer(hidden))) * present
        largest = hidden.masked_fill(present == 0, -torch.inf).amax(-1)
        largest = torch.where(mask.any(1, keepdim=True), largest, torch.zeros_like(largest))
        count = mask.sum(1, keepdim=True).to(tokens.dtype).log1p()
        pooled = torch.cat([hidden.sum(-1) / SUM_DIVISOR, largest, count, static], -1)
        summary: Tensor = self.pooled(pooled)
        return summary
