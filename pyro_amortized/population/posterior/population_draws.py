r"""Draws of the population parameters that stand for their uncertainty.

A fit has a normal distribution of its estimates, in unconstrained coordinates, with the covariance
of the observed information; posterior draws and bootstraps have draws of their own.
"""

import torch
from torch import Generator, Tensor

from ...numerics.cholesky import factored
from ...runtime.random_numbers import fork_seed


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


def even_normal_vectors(
    vector: Tensor, covariance: Tensor, num_points: int, num_sets: int, generator: Generator
) -> Tensor:
    r"""Quasi-random draws from a normal distribution of the population, unconstrained: sets of
    Sobol points, each scrambled on its own, so that means over different sets are independent and
    without bias, and have smaller errors than those over independent draws.

    Args:
        vector: Estimates, shape ``(population,)``.
        covariance: Their covariance; NaN for coordinates that keep their value.
        num_points: Number of points of a set, best a power of two.
        num_sets: Number of sets.
        generator: Source of randomness.

    Returns:
        Shape ``(num_sets, num_points, population)``.

    References:
        Owen (1997), Scrambled net variance for integrals of smooth functions.
    """
    estimated = ~covariance.diagonal().isnan()
    deviation = torch.zeros(num_sets, num_points, len(vector), dtype=torch.float64)
    if bool(estimated.any()):
        # The first coordinates of the points are the most even: they get the widest directions.
        values, axes = torch.linalg.eigh(covariance[estimated][:, estimated])
        scale = axes.flip(-1) * values.flip(0).clamp(min=0.0).sqrt()
        for j in range(num_sets):
            sobol = torch.quasirandom.SobolEngine(len(values), True, fork_seed(generator))
            uniform = sobol.draw(num_points, dtype=torch.float64)
            tiny = torch.finfo(torch.float32).eps  # the points have 30 bits, zero among them
            deviation[j][:, estimated] = (
                torch.special.ndtri(uniform.clamp(tiny, 1 - tiny)) @ scale.T
            )
    return vector + deviation
