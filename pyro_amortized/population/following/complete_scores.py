r"""Scores of the complete data: derivatives of log p(y, u | Psi) in the population.

They are central differences. Population parameters on which the observations do not depend change
the density of the individual parameters alone, which is cheap; the dynamics of the others are
solved once where they are the same.
"""

import torch
from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure


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
    scores = individual_scores(structure, repeated, draws, center, steps)
    observations = shared_observations(structure, cohort, draws, center, steps)
    return with_shared_slopes(structure, scores, observations, steps)


def individual_scores(
    structure: ModelStructure, repeated: Cohort, draws: Tensor, center: Tensor, steps: Tensor
) -> Tensor:
    """Derivatives of log p(u | Psi) alone; arguments and shape as in :func:`complete_scores`."""
    columns = []
    for step in torch.diag(steps):
        ahead, behind = (structure.constrain_population(center + x) for x in (step, -step))
        columns.append(
            structure.log_individual_of(repeated, draws, ahead)
            - structure.log_individual_of(repeated, draws, behind)
        )
    return torch.stack(columns, -1) / (2 * steps)


def shared_observations(
    structure: ModelStructure, cohort: Cohort, draws: Tensor, center: Tensor, steps: Tensor
) -> Tensor:
    r"""Log densities of the observations a step forwards and backwards in each shared parameter.

    Args:
        structure: The model.
        cohort: N individuals, in float64.
        draws: Shape ``(draw, individual, latent)``.
        center: The population, unconstrained, shape ``(population,)``.
        steps: Steps of the differences, same shape.

    Returns:
        Shape ``(2, draw, individual, shared)``.
    """
    units = torch.diag(steps)[structure.coordinates(structure.shared)]
    moved = [structure.constrain_population(center + x) for x in (*units, *-units)]
    if not moved:
        return draws.new_zeros(2, *draws.shape[:2], 0)
    observations = torch.stack(structure.log_observations(cohort, draws, moved), -1)
    return torch.stack(observations.split(len(units), -1))


def with_shared_slopes(
    structure: ModelStructure, scores: Tensor, observations: Tensor, steps: Tensor
) -> Tensor:
    """Scores of the individual parameters with those of the observations, which
    :func:`shared_observations` gives, added to the shared parameters.
    """
    is_shared = structure.coordinates(structure.shared)
    ahead, behind = observations
    slopes = torch.zeros_like(scores)
    slopes[..., is_shared] = (ahead - behind) / (2 * steps[is_shared])
    return scores + slopes
