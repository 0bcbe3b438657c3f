r"""Observation sites whose distribution reads recorded values from the cohort.

The category of today may depend on that of yesterday, and a hazard on a marker that was measured::

    before = cohort["state"].values[:, :-1]

The density of such a model is right as it is; its simulation has an order.
"""

import torch
from torch import Tensor

from ..cohort import Cohort
from ..runtime.isolation import seeded
from ..runtime.random_numbers import make_generator
from .population_parameters import Population
from .program_run import Assign, run_program
from .sites import individual_log_prob, individual_rows
from .structure import ModelStructure

NUM_INDIVIDUALS = 20  # individuals on which it is looked for
TOLERANCE = 1e-9  # relative difference of two log densities that are computed alike


def find_readers(structure: ModelStructure, cohort: Cohort, seed: int) -> tuple[str, ...]:
    """Names of the observation sites whose density, at fixed values, changes with the values in the
    cohort; none where a distribution cannot be drawn.
    """
    try:
        return _found_readers(structure, cohort, seed)
    except NotImplementedError:
        return ()


def _found_readers(structure: ModelStructure, cohort: Cohort, seed: int) -> tuple[str, ...]:
    generator = make_generator(seed)
    rows = torch.randperm(len(cohort), generator=generator)[:NUM_INDIVIDUALS]
    sample = cohort[rows]
    population = structure.initial_population()
    draws = structure.draw_individuals(sample, population, 1, generator)[0]
    simulate = frozenset(structure.observed)
    with torch.no_grad(), seeded(seed):
        assign = Assign(population, structure.individual, draws, simulate=simulate)
        trace = run_program(structure.model, sample, assign)
        values = {name: trace.nodes[name]["value"] for name in structure.observed}
        drawn = {
            site.series: individual_rows(site, values[name]).double()
            for name, site in structure.observed.items()
        }
        other = sample.with_values({n: x.nan_to_num(1.0, 1.0, 1.0) for n, x in drawn.items()})
        first, second = (
            _densities(structure, c, draws, population, values) for c in (sample, other)
        )
    return tuple(n for n in first if not torch.allclose(first[n], second[n], TOLERANCE, TOLERANCE))


def _densities(
    structure: ModelStructure,
    cohort: Cohort,
    draws: Tensor,
    population: Population,
    values: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Log density of each site with a density, finite ones, at given values."""
    assign = Assign(population, structure.individual, draws, observations=values)
    trace = run_program(structure.model, cohort, assign)
    return {
        name: individual_log_prob(site, trace.nodes[name], len(cohort)).nan_to_num()
        for name, site in structure.observed.items()
        if site.has_density
    }
