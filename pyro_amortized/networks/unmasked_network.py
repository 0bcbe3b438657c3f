r"""Networks that read no mask."""

from torch import Tensor, nn

from ..errors import GuideError


class Unmasked(nn.Module):
    r"""A network that knows no mask: it reads data in which every token is there, and refuses
    others.

    Args:
        network: Any module from ``(individual, token, feature)`` to ``(individual, num_summary)``.
        num_summary: Length of its result.

    Example:
        >>> network = Unmasked(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 4)), 4)
        >>> network(torch.ones(2, 3, 2), torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 0)).shape
        torch.Size([2, 4])
    """

    def __init__(self, network: nn.Module, num_summary: int) -> None:
        super().__init__()
        self.network, self.num_summary = network, num_summary

    def forward(self, tokens: Tensor, mask: Tensor, static: Tensor) -> Tensor:
        r"""Summaries, static features not among them; arguments as of :class:`DeepSet`.

        Raises:
            GuideError: A token is masked.
        """
        if not bool(mask.all()):
            i = int((~mask).any(1).nonzero()[0])
            raise GuideError(
                f"Individual {i} has {int((~mask[i]).sum())} tokens that are not there, and the "
                f"summary network ({type(self.network).__name__}) knows no mask.",
                "data in which every token is there.",
                "use a network that honours masks (DeepSet, AttentionNetwork, RecurrentNetwork), "
                "or an encoding on a common grid that marks nothing as absent (Indicator).",
            )
        summary: Tensor = self.network(tokens)
        return summary
