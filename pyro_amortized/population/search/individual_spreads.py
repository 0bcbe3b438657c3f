r"""How much the individual parameters vary, as a function of the population."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure
from ...runtime.random_numbers import make_generator


@dataclass(frozen=True)
class SpreadSettings:
    """What shows how much the individual parameters vary."""

    # Individuals, and draws of each, that show how much the individual parameters vary.
    max_individuals: int = 100
    num_draws: int = 50
    # Change of a coordinate for the slope of the log standard deviations.
    difference: float = 0.1


SPREADS = SpreadSettings()


class StandardDeviations(NamedTuple):
    r"""Standard deviations of each individual parameter, and of their narrowest combination.

    Args:
        log_sd: Their logarithms, shape ``(combination,)``, as a function of the population.
        vector: A population in unconstrained coordinates, shape ``(population,)``.
        at_vector: Their logarithms there.
        axes: The combinations, of which the last one is the narrowest there, shape ``(latent,
            combination)``.
    """

    log_sd: Callable[[Tensor], Tensor]
    vector: Tensor
    at_vector: Tensor
    axes: Tensor

    def slopes(self, unit: Tensor) -> Tensor:
        """Slopes of the logarithms in one coordinate, shape ``(combination,)``."""
        step = SPREADS.difference
        return (self.log_sd(self.vector + step * unit) - self.at_vector) / step


def standard_deviations(
    structure: ModelStructure, cohort: Cohort, vector: Tensor, seed: int
) -> StandardDeviations:
    """Those at the unconstrained population ``vector`` and around it."""
    # The same random individuals in every round: a cohort may be sorted by treatment arm.
    order = torch.randperm(len(cohort), generator=make_generator(seed))
    part = cohort[order[: SPREADS.max_individuals]]

    def deviations(at: Tensor) -> Tensor:
        population, generator = structure.constrain_population(at), make_generator(seed)
        draws = structure.draw_individuals(part, population, SPREADS.num_draws, generator)
        return (draws - draws.mean(0)).flatten(0, 1)

    drawn = deviations(vector).nan_to_num(0.0, 0.0, 0.0)
    sd = drawn.std(0).clamp(min=1e-300)
    correlation = torch.corrcoef((drawn / sd).T).reshape(len(sd), -1).nan_to_num(0.0)
    narrowest = torch.linalg.eigh(correlation).eigenvectors[:, :1]
    axes = torch.cat([torch.eye(len(sd), dtype=sd.dtype), narrowest], 1) / sd.unsqueeze(-1)

    def log_sd(at: Tensor) -> Tensor:
        return (deviations(at) @ axes).std(0).log()

    return StandardDeviations(log_sd, vector, (drawn @ axes).std(0).log(), axes)
