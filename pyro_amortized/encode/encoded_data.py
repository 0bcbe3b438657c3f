r"""What networks read, and the scales of its numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..cohort import Cohort, Index


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


class Standardize(nn.Module):
    """Shift and scale features to mean 0 and sd 1; constant features become 0."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(num_features, dtype=torch.float64))

    def fit(self, rows: Tensor) -> None:
        """Take mean and scale from rows, shape ``(row, feature)``."""
        if rows.numel():
            sd = rows.std(0, correction=0)
            self.mean.copy_(rows.mean(0))
            self.scale.copy_(
                torch.where(sd > 1e-8 * (1 + rows.abs().amax(0)), 1 / sd, torch.zeros_like(sd))
            )

    def forward(self, x: Tensor) -> Tensor:
        """Standardised features, at most 10 in size: one extreme value cannot drown the others."""
        return ((x - self.mean) * self.scale).clamp(-10, 10)


def num_channels(cohort: Cohort, name: str) -> int:
    """Number of channels of a series."""
    values = cohort[name].values
    return 1 if values.dim() == 2 else values.shape[-1]


def present(cohort: Cohort, name: str) -> Tensor:
    """True where anything was recorded, shape ``(individual, time)``."""
    return cohort[name].present


def by_channel(cohort: Cohort, name: str) -> tuple[Tensor, Tensor]:
    """Values and what was recorded, shape ``(individual, time, channel)`` also for one channel."""
    s = cohort[name]
    one = s.values.dim() == 2
    return (s.values.unsqueeze(-1), s.observed.unsqueeze(-1)) if one else (s.values, s.observed)
