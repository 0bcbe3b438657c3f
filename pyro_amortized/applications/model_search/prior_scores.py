r"""Scores of terms that change the distribution of the individual parameters.

With the normal distribution of an individual's unconstrained parameters u, mean m and covariance S,
and :math:`g = S^{-1}(u - m)`, the derivatives of its log density are

.. math:: \partial_\beta = c(x)\, g_j, \qquad
    \partial_\rho = s_j s_k \left(g_j g_k - (S^{-1})_{jk}\right)

for an effect :math:`\beta` of a covariate on the mean of parameter j, and for a correlation
:math:`\rho` of two parameters that are independent without it. Given the data of the individual,
their expectations are the scores of the data. With the posterior covariance C of u, the slopes
:math:`E[g \mid y]` have the covariance :math:`W = S^{-1} - S^{-1} C S^{-1}` under the model. The
expected information of two parameters that change mean and covariance by a, D and a', D' is

.. math:: a^\top W a' + \tfrac12 \operatorname{tr}(D W D' W),

exactly in a linear Gaussian model. The observed information is no alternative: for an effect that
explains half of a variance, it is zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort
from ...model.extended_program import CovariateEffect
from ...numerics.gaussians import Gaussians
from .search_candidates import Candidate


@dataclass(frozen=True, eq=False)
class Directions:
    r"""Directions in which terms change means and covariances of the individual parameters.

    Args:
        place: The coordinate whose mean each of the first directions changes.
        columns: The centred covariates, shape ``(individual, direction)``.
        pairs: The two coordinates that each of the further directions correlates.
    """

    place: tuple[int, ...]
    columns: Tensor
    pairs: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.place) + len(self.pairs)

    def scores_of(self, draws: Tensor, priors: Gaussians) -> Tensor:
        """Scores of draws ``(draw, individual, latent)``, shape ``(draw, individual,
        direction)``.
        """
        precision = torch.cholesky_inverse(priors.scale_tril)
        slope = torch.einsum("nij,knj->kni", precision, draws - priors.loc)
        first, second = ([p[i] for p in self.pairs] for i in (0, 1))
        products = slope[..., first] * slope[..., second] - precision[:, first, second]
        means = self.columns * slope[..., list(self.place)]
        return torch.cat([means, products * self._sizes(priors)], -1)

    def _sizes(self, priors: Gaussians) -> Tensor:
        """Products of the standard deviations of each pair, shape ``(individual, pair)``.

        They change with the population: a correlation is a parameter beside the deviations.
        """
        deviations = priors.standard_deviations
        first, second = ([p[i] for p in self.pairs] for i in (0, 1))
        return deviations[:, first] * deviations[:, second]

    def changes(self, priors: Gaussians) -> "PriorChanges":
        """How the directions change means and covariances."""
        num, (size, d) = len(self), priors.loc.shape
        loc = torch.zeros(num, size, d, dtype=torch.float64)
        covariance = torch.zeros(num, size, d, d, dtype=torch.float64)
        for n, j in enumerate(self.place):
            loc[n, :, j] = self.columns[:, n]
        sizes = self._sizes(priors)
        for n, (j, k) in enumerate(self.pairs):
            covariance[len(self.place) + n, :, j, k] = sizes[:, n]
            covariance[len(self.place) + n, :, k, j] = sizes[:, n]
        return PriorChanges(loc, covariance)


class PriorChanges(NamedTuple):
    """Derivatives of means ``(parameter, individual, latent)`` and covariances ``(parameter,
    individual, latent, latent)`` of the individual parameters.
    """

    loc: Tensor
    covariance: Tensor

    def information(self, other: "PriorChanges", weight: Tensor) -> Tensor:
        r"""Expected information :math:`\sum_i a^\top W a' + \tfrac12 \operatorname{tr}(D W D' W)`.

        Args:
            other: Derivatives in other parameters.
            weight: W, shape ``(individual, latent, latent)``.

        Returns:
            Shape ``(parameter, other parameter)``.
        """
        means = torch.einsum("pni,nij,qnj->pq", self.loc, weight, other.loc)
        ours, theirs = self.covariance @ weight, other.covariance @ weight
        return means + torch.einsum("pnij,qnji->pq", ours, theirs) / 2


def directions_of(
    candidates: Sequence[Candidate], coordinate: dict[str, int], cohort: Cohort
) -> tuple[Directions, list[list[int]]]:
    r"""The directions of some candidates, and for each candidate the numbers of its own.

    Args:
        candidates: Covariate effects and correlations.
        coordinate: Coordinate of every individual parameter by its name.
        cohort: The data.
    """
    place: list[int] = []
    columns: list[Tensor] = []
    pairs: list[tuple[int, int]] = []
    num_means = sum(c.num_added for c in candidates if isinstance(c.term, CovariateEffect))
    groups: list[list[int]] = []
    for candidate in candidates:
        if isinstance(candidate.term, CovariateEffect):
            new = candidate.term.columns(cohort)
            groups.append(list(range(len(place), len(place) + new.shape[-1])))
            place += [coordinate[candidate.term.entry.name]] * new.shape[-1]
            columns.append(new)
        else:
            known = [p for p in candidate.pairs if p not in pairs]
            pairs += known
            groups.append([num_means + pairs.index(p) for p in candidate.pairs])
    joined = torch.cat(columns, -1) if columns else torch.zeros(len(cohort), 0).double()
    return Directions(tuple(place), joined, tuple(pairs)), groups
