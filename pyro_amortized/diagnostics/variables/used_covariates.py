"""Which covariates the density of a model depends on."""

from dataclasses import replace

import torch
from torch import Tensor

from ...cohort import Cohort
from ...sampling.individuals import IndividualPosteriors
from ...sampling.posterior_centers import posterior_centers


def names_of_used_covariates(individuals: IndividualPosteriors) -> list[str]:
    """Names of the covariates that change the density of some individual.

    Args:
        individuals: Individual posteriors; the density is that at their centres.
    """
    points = posterior_centers(individuals).unsqueeze(0)
    cohort = individuals.cohort.to(dtype=torch.float64)

    def density(data: Cohort) -> Tensor:
        return individuals.structure.log_density(data, points, individuals.population).total[0]

    before, used = density(cohort), []
    for name, x in cohort.covariates.items():
        other = density(replace(cohort, covariates={**cohort.covariates, name: x.roll(1, 0)}))
        if not torch.allclose(before, other, rtol=1e-9, atol=1e-9, equal_nan=True):
            used.append(name)
    return used
