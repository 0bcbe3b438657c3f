r"""Prediction discrepancies (pd) and normalised prediction distribution errors (npde).

The pd of a value is its rank among simulations of it. For the npde, the values of an individual and
its simulations are decorrelated by the mean and the covariance of the simulations, and the ranks
are turned into quantiles of the normal distribution.

References:
    Comets, Brendel, Mentré (2008), Computing normalised prediction distribution errors to evaluate
    nonlinear mixed-effect models.
"""

import torch
from torch import Generator, Tensor

from ...numerics.cholesky import factored


def prediction_errors(
    values: Tensor, observed: Tensor, simulated: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """The pd and npde of values ``(individual, time)`` among simulations ``(simulation, individual,
    time)``. Ties (counts, values at a limit) are broken at random: noise smaller than the smallest
    difference between simulated values is added to data and simulations.
    """
    num = len(simulated)
    differences = simulated.sort(0).values.diff(dim=0)
    smallest = torch.where(differences > 0, differences, torch.inf).amin(0)
    smallest = torch.where(smallest.isfinite(), smallest, 1.0)

    def with_noise(x: Tensor) -> Tensor:
        return x + smallest * torch.rand(x.shape, generator=generator, dtype=torch.float64)

    values, simulated = with_noise(values.double()), with_noise(simulated.double())
    pd = (simulated < values).double().mean(0).clamp(0.5 / num, 1 - 0.5 / num)
    npde = torch.full_like(pd, torch.nan)
    for i in range(len(values)):
        columns = observed[i].nonzero()[:, 0]
        if len(columns):
            npde[i, columns] = _decorrelated(
                values[i, columns], simulated[:, i, columns], pd[i, columns]
            )
    return pd, npde


def _decorrelated(values: Tensor, simulated: Tensor, pd: Tensor) -> Tensor:
    """The npde of one individual: values ``(time,)``, simulations ``(simulation, time)``."""
    num = len(simulated)
    if len(values) == 1:
        return torch.special.ndtri(pd)
    mean = simulated.mean(0)
    centered = simulated - mean
    factor = factored(centered.T @ centered / num)
    independent = torch.linalg.solve_triangular(factor, centered.T, upper=False).T
    deviation = (values - mean).unsqueeze(-1)
    of_data = torch.linalg.solve_triangular(factor, deviation, upper=False)[:, 0]
    rank = (independent < of_data).double().mean(0).clamp(0.5 / num, 1 - 0.5 / num)
    return torch.special.ndtri(rank)
