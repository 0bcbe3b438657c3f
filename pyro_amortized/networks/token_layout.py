r"""Sizes of encoded data, from which a summary network is made."""

from dataclasses import dataclass

from torch import nn

from ..errors import GuideError


@dataclass(frozen=True)
class TokenLayout:
    r"""Sizes of encoded data, as an encoder gives them.

    A summary network is made from a layout, which is its first argument:
    ``Networks(summary=AttentionNetwork)`` or
    ``Networks(summary=partial(AttentionNetwork, width=128))``.

    Args:
        num_features: Number of features of a token.
        num_static: Number of static features.
        num_places: Number of the first tokens that have fixed places, on a common time grid or in
            windows of time; 0 without them.
        num_values: Number of the first features of a token with a fixed place that differ between
            individuals: values and indicators on a grid, also times in windows.
        has_more: Whether tokens without a fixed place (doses, further values in a window) follow.
    """

    num_features: int
    num_static: int
    num_places: int = 0
    num_values: int = 0
    has_more: bool = False


def summary_size(network: nn.Module) -> int:
    r"""Length of the summary of a network.

    Args:
        network: A summary network.

    Raises:
        GuideError: Its attribute ``num_summary`` is missing or not an integer.
    """
    size = getattr(network, "num_summary", None)
    if not isinstance(size, int):
        raise GuideError(
            f"The summary network {type(network).__name__} has `num_summary` {size!r}.",
            "an attribute `num_summary`: the length of the summary that it returns.",
            "set `self.num_summary` in its `__init__`.",
        )
    return size
