r"""The population parameters as results show them: a correlation matrix by its correlations, other
sites by their entries.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints

from ...model import ModelStructure
from ...numerics.laplace import confidence_interval, delta_method, normal_quantile


@dataclass(frozen=True, eq=False)
class ReportedSite:
    r"""The values of one population site that results show.

    Args:
        site: Name of the site.
        names: A name for each value.
        labels: The user's label of each value, or empty texts.
        scales: ``"log"``, ``"sd of log"``, ``"correlation"`` or ``""`` of each value.
        values: The values as a function of the unconstrained population, shape ``(value,)``.
    """

    site: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    scales: tuple[str, ...]
    values: Callable[[Tensor], Tensor]

    def interval(self, vector: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        r"""95 % confidence interval of each value.

        It is computed in unconstrained coordinates and mapped into the support; for a correlation r
        on Fisher's scale, artanh r.

        Args:
            vector: Unconstrained estimates.
            covariance: Their covariance.
        """
        if "correlation" not in self.scales:
            return confidence_interval(self.values, vector, covariance)
        value, error = delta_method(lambda z: self.values(z).atanh(), vector, covariance)
        half = normal_quantile(0.95) * error
        return (value - half).tanh(), (value + half).tanh()


def reported_site(structure: ModelStructure, name: str) -> ReportedSite:
    """What results show of a population site."""
    site = structure.population[name]

    def entries(vector: Tensor) -> Tensor:
        return structure.constrain_population(vector)[name].reshape(-1)

    if not isinstance(site.support, type(constraints.corr_cholesky)):
        size = site.shape.numel()
        labels = site.labels if len(site.labels) == size else ("",) * size
        return ReportedSite(
            name, tuple(site.entry_names), labels, site.scales or ("",) * size, entries
        )
    size = site.shape[-1]
    rows, columns = torch.tril_indices(size, size, -1)
    labels = site.labels if len(site.labels) == size else tuple(map(str, range(size)))

    def correlations(vector: Tensor) -> Tensor:
        factor = structure.constrain_population(vector)[name]
        return (factor @ factor.mT)[..., rows, columns]

    pairs = tuple(
        f"{labels[j]}, {labels[i]}" for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
    )
    names = tuple(f"{name}[{pair}]" for pair in pairs)
    return ReportedSite(name, names, pairs, ("correlation",) * len(pairs), correlations)
