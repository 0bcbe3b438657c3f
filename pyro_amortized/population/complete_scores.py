r"""Scores of the complete data: derivatives of log p(y, u | Psi) in the population.

They are central differences. Population parameters on which the observations do not depend change
the density of the individual parameters alone, which is cheap; the dynamics of the others are
solved once where they are the same.
"""

import torch
from torch import Tensor

from ..cohort import Cohort
from ..model import ModelStructure


def complete_scores(
    structure: ModelStructure,
    cohort: Cohort,
    repeated: Cohort,
    draws: Tensor,
    center: Tensor,
    steps: Tensor,
) -> Tensor:
    r"""Derivatives of log p(y, u | Psi) in the unconstrained population.

    Args:
        structure: The model.
        cohort: N individuals, in float64.
        repeated: The cohort repeated once per draw.
        draws: Individual parameters, unconstrained, shape ``(draw, individual, latent)``.
        center: The population, unconstrained, shape ``(population,)``.
        steps: Steps of the differences, same shape.

    Returns:
        Shape ``(draw, individual, population)``.
    """
    shared = structure.coordinates(structure.shared).nonzero()[:, 0].tolist()
    ends = [
        (structure.constrain_population(center + x), structure.constrain_population(center - x))
        for x in torch.diag(steps)
    ]
    columns = [
        structure.log_individual_of(repeated, draws, ahead)
        - structure.log_individual_of(repeated, draws, behind)
        for ahead, behind in ends
    ]
    moved = [population for j in shared for population in ends[j]]
    if moved:
        observations = structure.log_observations(cohort, draws, moved)
        for place, j in enumerate(shared):
            ahead, behind = observations[2 * place : 2 * place + 2]
            columns[j] = columns[j] + ahead - behind
    return torch.stack(columns, -1) / (2 * steps)
