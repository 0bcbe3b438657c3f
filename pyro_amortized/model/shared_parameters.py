r"""The shared parameters: population parameters that the observations depend on directly.

The individual parameters are fixed. If the observations have a density, a parameter is shared if
the density changes when this parameter alone changes (this also finds dependencies that autograd
does not see, such as a comparison or a detached tensor), or if autograd finds it in the density.
If the observations can only be simulated, a parameter is shared if it changes a simulation with the
same random numbers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..cohort import Cohort
from ..runtime.isolation import seeded
from ..runtime.random_numbers import make_generator
from ..runtime.solver_context import SolutionCache, caching
from .population_parameters import Population
from .program_run import Assign, run_program
from .sites import has_density, site_log_prob
from .structure import ModelStructure

NUM_MOVED = 8  # further values of each parameter, because a simulated count may not change for one
# Relative and absolute difference up to which two log densities are the same: sums of the same
# terms differ by rounding only.
ROUNDING = 1e-12


def find_shared(structure: ModelStructure, cohort: Cohort, seed: int) -> tuple[str, ...]:
    """Names of the population sites on which the observations depend directly.

    The individual parameters are fixed. Nuisance sites are fixed too, but a parameter that their
    distribution depends on is also shared.
    """
    population, *others = structure.draw_populations(cohort, 1 + NUM_MOVED, make_generator(seed))
    draws = structure.draw_individuals(cohort, population, 1, make_generator(seed))[0]
    fixed, _ = structure.constrain(cohort, draws, population)
    nuisance: dict[str, Tensor] = {}
    known = structure.has_density
    if structure.nuisance:
        with seeded(seed):
            trace = run_program(structure.model, cohort, Assign(population, values=fixed))
        names = [*structure.observed, *structure.nuisance]
        known = all(has_density(trace.nodes[name]) for name in names)
        nuisance = {name: trace.nodes[name]["value"].detach() for name in structure.nuisance}
    if known:
        shared = _in_density(structure, cohort, population, others[0], fixed | nuisance)
    else:
        shared = _in_simulation(structure, cohort, population, others, fixed, seed)
    return tuple(name for name in structure.population if name in shared)


def _in_density(
    structure: ModelStructure,
    cohort: Cohort,
    population: Population,
    other: Population,
    fixed: Mapping[str, Tensor],
) -> set[str]:
    """Change one parameter at a time without gradients, so that every run uses the same solver.

    Autograd then decides about the parameters that did not change the density.
    """

    def observation(values: Mapping[str, Tensor]) -> Tensor:
        trace = run_program(structure.model, cohort, Assign(values, values=fixed))
        names = [*structure.observed, *structure.nuisance]
        return torch.stack([site_log_prob(trace.nodes[name]).sum() for name in names]).sum()

    shared = set()
    with torch.no_grad(), caching(SolutionCache()):
        observation(population)  # a solver may choose its method by what happened in an earlier run
        base = observation(population)
        for name in population:
            moved = observation(dict(population) | {name: other[name]})
            if not torch.allclose(moved, base, rtol=ROUNDING, atol=ROUNDING, equal_nan=True):
                shared.add(name)
    leaves = {n: x.clone().requires_grad_() for n, x in population.items() if n not in shared}
    total = observation(dict(population) | leaves)
    if leaves and total.requires_grad:
        grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        shared |= {name for name, g in zip(leaves, grads, strict=True) if g is not None}
    return shared


def _in_simulation(
    structure: ModelStructure,
    cohort: Cohort,
    population: Population,
    others: list[dict[str, Tensor]],
    fixed: Mapping[str, Tensor],
    seed: int,
) -> set[str]:
    simulate = frozenset(structure.observed)

    def simulation(values: Population) -> list[Tensor]:
        with seeded(seed), torch.no_grad():
            trace = run_program(
                structure.model, cohort, Assign(values, values=fixed, simulate=simulate)
            )
        return [trace.nodes[name]["value"] for name in (*structure.observed, *structure.nuisance)]

    def same(a: list[Tensor], b: list[Tensor]) -> bool:
        return all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b, strict=True))

    with caching(SolutionCache()):
        simulation(population)  # a solver may choose its method by what happened in an earlier run
        base = simulation(population)
        if not same(base, simulation(population)):
            return set(population)  # it has random numbers outside its sites, so nothing is fixed
        return {
            name
            for name in population
            if any(not same(base, simulation(dict(population) | {name: o[name]})) for o in others)
        }
