r"""Which population parameters do the observations depend on when the individual parameters are
held fixed?

Where the observations have a density: those that change it when one is moved at a time (which also
sees what autograd cannot: a comparison, a detached tensor), and those that autograd finds in it.
Where they can only be simulated: those that change a simulation made with the same random numbers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..cohort import Cohort
from ..runtime.isolation import seeded
from ..runtime.random_numbers import make_generator
from ..runtime.solver_context import SolutionCache, caching
from .population_parameters import Population
from .sites import Assign, has_density, run_program, site_log_prob
from .structure import ModelStructure

NUM_MOVED = 8  # other values of each parameter: a count may stay the same for one of them


def find_shared(structure: ModelStructure, cohort: Cohort, seed: int) -> tuple[str, ...]:
    """Names of the population sites on which the observations depend when the individual
    parameters are held fixed (and so is the nuisance, on whose law they may depend as well).
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
    """Move one parameter at a time without gradients, so that the same solver runs every time; then
    ask autograd for those that did not change the density.
    """

    def observation(values: Mapping[str, Tensor]) -> Tensor:
        trace = run_program(structure.model, cohort, Assign(values, values=fixed))
        names = [*structure.observed, *structure.nuisance]
        return torch.stack([site_log_prob(trace.nodes[name]).sum() for name in names]).sum()

    shared = set()
    with torch.no_grad(), caching(SolutionCache()):
        observation(population)  # a solver may choose its method by what it met in an earlier run
        base = observation(population)
        for name in population:
            moved = observation(dict(population) | {name: other[name]})
            if not torch.allclose(moved, base, rtol=1e-12, atol=1e-12, equal_nan=True):
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
        simulation(population)  # a solver may choose its method by what it met in an earlier run
        base = simulation(population)
        if not same(base, simulation(population)):
            return set(population)  # it has random numbers of its own: nothing can be held fixed
        return {
            name
            for name in population
            if any(not same(base, simulation(dict(population) | {name: o[name]})) for o in others)
        }
