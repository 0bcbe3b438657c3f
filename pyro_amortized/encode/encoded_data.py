r"""Encoded data: the tensors that a summary network reads."""

from dataclasses import dataclass

from torch import Tensor

from ..cohort import Index


@dataclass(frozen=True, eq=False)
class Encoded:
    r"""N encoded individuals.

    Args:
        tokens: Features of the tokens, shape ``(individual, token, feature)``; zero where ``mask``
            is False.
        mask: True where there is a token, False in the padding and where nothing was recorded,
            shape ``(individual, token)``.
        static: Features of the individuals (covariates, totals of the doses, moments), shape
            ``(individual, static)``.
    """

    tokens: Tensor
    mask: Tensor
    static: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Index) -> "Encoded":
        return Encoded(self.tokens[index], self.mask[index], self.static[index])
