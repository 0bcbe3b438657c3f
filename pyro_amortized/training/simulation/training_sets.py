r"""Training sets: simulated individuals with their parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...cohort import Cohort, end_to_end
from ...numerics.gaussians import Gaussians


@dataclass(frozen=True, eq=False)
class TrainingSet:
    r"""Simulated individuals.

    Args:
        cohort: Designs with simulated values.
        unconstrained: Individual parameters, unconstrained, shape ``(individual, latent)``.
        shared: Shared parameters, unconstrained, shape ``(individual, shared)``.
        priors: The distribution that the parameters of each individual were drawn from, batch shape
            ``(individual,)``.
        num_failed: Simulations that were not finite; they are not among the individuals.
    """

    cohort: Cohort
    unconstrained: Tensor
    shared: Tensor
    priors: Gaussians
    num_failed: int

    def __len__(self) -> int:
        return len(self.cohort)


def end_to_end_sets(sets: Sequence[TrainingSet]) -> TrainingSet:
    """One training set with the individuals of several, in their order."""
    if len(sets) == 1:
        return sets[0]
    return TrainingSet(
        end_to_end([s.cohort for s in sets]),
        torch.cat([s.unconstrained for s in sets]),
        torch.cat([s.shared for s in sets]),
        Gaussians(*(torch.cat(x) for x in zip(*(s.priors for s in sets), strict=True))),
        sum(s.num_failed for s in sets),
    )


def rounded(simulations: TrainingSet) -> TrainingSet:
    """Observations rounded to float32, as they are stored, so that training sees the same values
    from memory and from a file. Times, doses and covariates keep their precision.
    """
    values = {n: s.values.float().double() for n, s in simulations.cohort.series.items()}
    return replace(
        simulations, cohort=simulations.cohort.to(dtype=torch.float64).with_values(values)
    )


def num_bytes(simulations: TrainingSet) -> int:
    """Memory that a training set takes, in bytes."""
    cohort = simulations.cohort
    tensors: list[Tensor] = [simulations.unconstrained, simulations.shared, *simulations.priors]
    groups = (cohort.series, cohort.time_varying)
    tensors += [x for group in groups for s in group.values() for x in s.columns.values()]
    tensors += list(cohort.covariates.values())
    tensors += list(cohort.doses.columns.values()) if cohort.doses is not None else []
    return sum(x.numel() * x.element_size() for x in tensors)
