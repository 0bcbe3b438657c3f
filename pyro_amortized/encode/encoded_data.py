r"""What networks read, and the scales of its numbers."""

from dataclasses import dataclass

from torch import Tensor

from ..cohort import Index


@dataclass(frozen=True, eq=False)
class Encoded:
    r"""N individuals as a network reads them.

    Args:
        tokens: Shape ``(individual, token, feature)``, zero where ``mask`` is False.
        mask: True where the token is there, shape ``(individual, token)``.
        static: Covariates and totals, shape ``(individual, static)``.
    """

    tokens: Tensor
    mask: Tensor
    static: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Index) -> "Encoded":
        return Encoded(self.tokens[index], self.mask[index], self.static[index])
