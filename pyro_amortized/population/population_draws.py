r"""Draws of the population parameters that stand for their uncertainty.

A fit has a normal distribution of its estimates, in unconstrained coordinates, with the covariance
of the observed information; posterior draws and bootstraps have draws of their own.
"""

import torch
from torch import Generator, Tensor

from ..numerics.cholesky import factored


def normal_vectors(
    vector: Tensor, covariance: Tensor, num_draws: int, generator: Generator
) -> Tensor:
    r"""Draws from a normal distribution of the population, unconstrained.

    Args:
        vector: Estimates, shape ``(population,)``.
        covariance: Their covariance; NaN for coordinates that keep their value.
        num_draws: Number of draws.
        generator: Source of randomness.

    Returns:
        Shape ``(draw, population)``.
    """
    estimated = ~covariance.diagonal().isnan()
    deviation = torch.zeros(num_draws, len(vector), dtype=torch.float64)
    if bool(estimated.any()):
        scale = factored(covariance[estimated][:, estimated])
        normal = torch.randn(num_draws, len(scale), generator=generator, dtype=torch.float64)
        deviation[:, estimated] = normal @ scale.T
    return vector + deviation
