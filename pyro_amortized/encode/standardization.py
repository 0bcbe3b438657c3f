r"""Standardization of features to mean 0 and standard deviation 1 over the training data."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class StandardizationSettings:
    r"""Limits of the standardization.

    Args:
        constant_sd: A feature is constant if its standard deviation is at most this, relative to
            one plus its largest absolute value: rounding in float64 gives about 1e-16.
        largest_value: Largest absolute value of a standardised feature, so that a single extreme
            value cannot dominate the sums of a network.
    """

    constant_sd: float = 1e-8
    largest_value: float = 10.0


DEFAULTS = StandardizationSettings()


class Standardize(nn.Module):
    r"""Shifts and scales features to mean 0 and standard deviation 1.

    Constant features become 0.

    Args:
        num_features: Number of features.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(num_features, dtype=torch.float64))

    def fit(self, rows: Tensor) -> None:
        r"""Take mean and scale from training data.

        Args:
            rows: Shape ``(row, feature)``. Without rows nothing is changed.
        """
        if rows.numel():
            sd = rows.std(0, correction=0)
            varies = sd > DEFAULTS.constant_sd * (1 + rows.abs().amax(0))
            self.mean.copy_(rows.mean(0))
            self.scale.copy_(torch.where(varies, 1 / sd, torch.zeros_like(sd)))

    def fit_columns(self, first: int, rows: Tensor) -> None:
        r"""Take mean and scale of some features from training data.

        Args:
            first: Number of the first of these features.
            rows: Shape ``(row, feature)``. Without rows mean and scale become 0 and 1.
        """
        part = Standardize(rows.shape[-1])
        part.fit(rows)
        columns = slice(first, first + rows.shape[-1])
        self.mean[columns], self.scale[columns] = part.mean, part.scale

    def forward(self, x: Tensor) -> Tensor:
        """Standardised features, shape ``(*, feature)``."""
        largest = DEFAULTS.largest_value
        return ((x - self.mean) * self.scale).clamp(-largest, largest)
