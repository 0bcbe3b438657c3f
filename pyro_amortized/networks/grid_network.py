r"""Networks that read values in fixed places, and networks that know no mask."""

import torch
from torch import Tensor, nn

from ..errors import GuideError
from .set_networks import DeepSet
from .token_layout import TokenLayout


class GridNetwork(nn.Module):
    r"""Summary of values in fixed places: one hidden layer over all of them, with their indicators.

    Tokens behind the places (doses) go through a :class:`DeepSet`. What is not recorded enters as
    zero beside an indicator of zero; more columns than places cannot be read, and are refused by
    the encoder that lays out the grid.

    Args:
        layout: The tokens; ``num_places`` of them stand in fixed places.
        width: Width of the hidden layer, and length of the summary.

    Raises:
        GuideError: The tokens have no fixed places.
    """

    def __init__(self, layout: TokenLayout, width: int = 128) -> None:
        super().__init__()
        if not layout.num_places:
            raise GuideError(
                "A GridNetwork for tokens without fixed places.",
                "an encoding on a common time grid.",
                "train on a design whose individuals share their times, or choose a network that "
                "reads sets (DeepSet, AttentionNetwork).",
            )
        self.settings = {"width": width}
        self.num_places, self.num_values, self.num_summary = (
            layout.num_places,
            layout.num_values,
            width,
        )
        self.others = DeepSet(layout, 32, 32, 2) if layout.has_more else None
        num_inputs = layout.num_places * layout.num_values + layout.num_static
        self.layer = nn.Linear(num_inputs + (32 if layout.has_more else 0), width)

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
