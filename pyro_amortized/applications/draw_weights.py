r"""Weights of posterior draws, and Monte Carlo errors of means under them.

With normalised weights :math:`w_k`, the mean of values :math:`f_k` has the squared error

.. math:: \sum_g \Big( \sum_{k \in g} w_k\, (f_k - \bar f) \Big)^2

over groups g of draws that depend on each other: draws that share a population, or a set of
quasi-random populations. Draws without groups are independent. With few groups the sum is itself
uncertain; it is never taken to be smaller than that of independent draws.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DrawWeights:
    r"""Weights of the draws of N patients.

    Args:
        values: Weights that sum to 1 for each patient, shape ``(draw, individual)``.
        groups: Number of the group of each draw, shape ``(draw,)``; None for independent draws.
    """

    values: Tensor
    groups: Tensor | None = None

    def squared_error(self, values: Tensor, mean: Tensor) -> Tensor:
        """Squared Monte Carlo error of a mean, shape ``(*, individual)``, of values ``(*, draw,
        individual)``.
        """
        terms = self.values * (values - mean.unsqueeze(-2))
        independent = terms.square().sum(-2)
        if self.groups is None:
            return independent
        sums = terms.new_zeros(*terms.shape[:-2], int(self.groups.max()) + 1, terms.shape[-1])
        sums = sums.index_add(-2, self.groups, terms)
        return independent.maximum(sums.square().sum(-2))

    def mean_error(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted means and their Monte Carlo errors, shape ``(*, individual)``, of values ``(*,
        draw, individual)``.
        """
        mean = (self.values * values).sum(-2)
        return mean, self.squared_error(values, mean).sqrt()

    def inflation(self, values: Tensor) -> Tensor:
        """Factor by which groups enlarge the Monte Carlo error of a mean, shape ``(individual,)``,
        of values ``(draw, individual)``; 1 for independent draws.
        """
        if self.groups is None:
            return self.values.new_ones(self.values.shape[1])
        mean = (self.values * values).sum(0)
        alone = DrawWeights(self.values).squared_error(values, mean)
        ratio = self.squared_error(values, mean) / alone
        return torch.where(alone > 0, ratio, 1.0).sqrt()

    def some(self, patients: slice) -> "DrawWeights":
        """Those of some of the patients."""
        return DrawWeights(self.values[:, patients], self.groups)
