r"""A summary network for values that have fixed places on a common time grid."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import GuideError
from .set_networks import DeepSet
from .token_layout import TokenLayout


@dataclass(frozen=True)
class GridNetworkSettings:
    r"""Size of the network that reads the doses.

    Args:
        dose_summary: Length of the summary of the doses, and width of its hidden layers. It is half
            of the default of :class:`DeepSet`, because doses carry less information than
            observations.
        dose_heads: Number of its softmax-weighted means.
    """

    dose_summary: int = 32
    dose_heads: int = 2


DEFAULTS = GridNetworkSettings()


class GridNetwork(nn.Module):
    r"""Summary of values in fixed places by one hidden layer over all values and their indicators.

    Tokens without a fixed place (doses) are read by a :class:`DeepSet`. A value that was not
    recorded enters as zero with an indicator of zero.

    Args:
        layout: Sizes of the tokens, ``num_places`` of which have fixed places.
        width: Width of the hidden layer, which is the length of the summary.

    Raises:
        GuideError: The tokens have no fixed places.
    """

    def __init__(self, layout: TokenLayout, width: int = 128) -> None:
        super().__init__()
        if not layout.num_places:
            raise GuideError(
                "A GridNetwork was chosen for tokens without fixed places.",
                "an encoding on a common time grid.",
                "train on a design whose individuals share their times, or choose a network that "
                "reads sets (DeepSet, AttentionNetwork).",
            )
        self.settings = {"width": width}
        self.num_places, self.num_values = layout.num_places, layout.num_values
        self.num_summary = width
        num_inputs = layout.num_places * layout.num_values + layout.num_static
        self.others: DeepSet | None = None
        if layout.has_more:
            size, num_heads = DEFAULTS.dose_summary, DEFAULTS.dose_heads
            self.others = DeepSet(layout, size, size, num_heads)
            num_inputs += size
        self.layer = nn.Linear(num_inputs, width)

    def forward(self, tokens: Tensor, mask: Tensor, static: Tensor) -> Tensor:
        """Summaries; the arguments and the result are those of :class:`DeepSet`."""
        present = mask[:, : self.num_places].unsqueeze(-1)
        values = tokens[:, : self.num_places, : self.num_values]
        parts = [torch.where(present, values, torch.zeros_like(values)).flatten(1), static]
        if self.others is not None:
            rest = slice(self.num_places, None)
            parts.append(self.others(tokens[:, rest], mask[:, rest], static))
        summary: Tensor = nn.functional.silu(self.layer(torch.cat(parts, -1)))
        return summary
