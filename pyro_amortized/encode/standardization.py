r"""Features standardised by the training data."""

import torch
from torch import Tensor, nn


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
