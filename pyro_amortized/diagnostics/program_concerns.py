"""What a program leaves out: parameters that it does not use, and limits that it does not know."""

import torch

from ..cohort import Cohort
from ..model import ModelStructure, at_limits
from ..runtime.random_numbers import make_generator
from .result_selection import values_at_limits


def unused_parameters(structure: ModelStructure, cohort: Cohort, seed: int) -> tuple[str, ...]:
    """Names of population sites that change neither the densities of the observations nor those of
    the individual parameters; none where nuisance sites may depend on them.
    """
    if structure.nuisance:
        return ()
    generator = make_generator(seed)
    first, other = structure.draw_populations(cohort, 2, generator)
    draws = structure.draw_individuals(cohort, first, 1, generator)

    def changes(name: str) -> bool:
        populations = (first, {**first, name: other[name]})
        before, after = (structure.log_individual(cohort, draws, p) for p in populations)
        return not torch.allclose(before, after, equal_nan=True)

    with torch.no_grad():
        return tuple(
            name
            for name in structure.population
            if name not in structure.shared and not changes(name)
        )


def uncensored_series(structure: ModelStructure, cohort: Cohort, seed: int) -> tuple[str, ...]:
    """Names of series with recorded values at a limit of the table whose
    distribution has no limits, so that it takes them as measurements.
    """
    names = [name for name in structure.series if bool(values_at_limits(cohort, name).any())]
    if not names or not structure.has_density:
        return ()
    generator = make_generator(seed)
    (population,) = structure.draw_populations(cohort, 1, generator)
    draws = structure.draw_individuals(cohort, population, 1, generator)
    with torch.no_grad():
        known = at_limits(structure, cohort, draws, population)
    return tuple(name for name in names if name not in known)
