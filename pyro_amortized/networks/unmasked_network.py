r"""Summary networks made of a network that does not accept a mask."""

from torch import Tensor, nn

from ..errors import GuideError


class Unmasked(nn.Module):
    r"""A network that does not accept a mask, for data in which every token is present.

    Args:
        network: Any module that maps ``(individual, token, feature)`` to
            ``(individual, num_summary)``.
        num_summary: Length of its result.

    Example:
        >>> import torch
        >>> network = Unmasked(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)), 4)
        >>> network(torch.ones(2, 3, 2), torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 0)).shape
        torch.Size([2, 4])
    """

    def __init__(self, network: nn.Module, num_summary: int) -> None:
        super().__init__()
        self.network, self.num_summary = network, num_summary

    def forward(self, tokens: Tensor, mask: Tensor, static: Tensor) -> Tensor:
        r"""Summaries, which do not depend on the static features.

        The arguments are those of :class:`~pyro_amortized.networks.DeepSet`.

        Raises:
            GuideError: A token is masked.
        """
        if not bool(mask.all()):
            i = int((~mask).any(1).nonzero()[0])
            raise GuideError(
                f"Individual {i} has {int((~mask[i]).sum())} masked tokens, and the summary "
                f"network ({type(self.network).__name__}) does not accept a mask.",
                "data in which every token is present.",
                "use a network that accepts masks (DeepSet, AttentionNetwork, RecurrentNetwork), "
                "or an encoding that masks no token of a common grid (Indicator).",
            )
        summary: Tensor = self.network(tokens)
        return summary
