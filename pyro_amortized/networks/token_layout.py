r"""What a summary network must know of the tokens that it will read."""

from dataclasses import dataclass

from torch import nn

from ..errors import GuideError


@dataclass(frozen=True)
class TokenLayout:
    r"""The shape of encoded data, from an encoder.

    A summary network is a class whose first argument is a layout:
    ``Networks(summary=AttentionNetwork)``, or ``partial(AttentionNetwork, width=128)``.

    Args:
        num_features: Number of features of a token.
        num_static: Number of static features.
        num_places: Leading tokens that stand in fixed places of a common time grid; 0 without one.
        num_values: Leading features of a token that hold values and indicators; in a fixed place
            the others never change.
        has_more: Whether tokens without a fixed place (doses) follow.
    """

    num_features: int
    num_static: int
    num_places: int = 0
    num_values: int = 0
    has_more: bool = False


def summary_size(network: nn.Module) -> int:
    r"""Length of a network's summary.

    Raises:
        GuideError: It does not say.
    """
    found = getattr(network, "num_summary", None)
    if not isinstance(found, int):
        raise GuideError(
            f"The summary network {type(network).__name__} has `num_summary` {found!r}.",
            "an attribute `num_summary`: the length of the summary that it returns.",
            "set `self.num_summary` in its `__init__`.",
        )
    return found
