r"""Every individual with its own shared parameters, in one call of the program: is there a layout?

A shared parameter that is drawn once per individual gets the shape ``(individual, 1, ...,
*event)``. How many trailing singletons it needs depends on how the program uses it: none for
``sigma[..., None]``, one for a bare ``sigma``. The layouts are tried, and each is checked exactly
against ordinary calls of the program: by its density, or, where it has none, by simulations with
the same random numbers.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..cohort import Cohort
from ..runtime.isolation import seeded
from ..runtime.random_numbers import make_generator
from .population_parameters import Population
from .program_simulation import lay_out, simulated_values
from .sites import Assign, individual_first, run_program, site_log_prob, sum_per_individual
from .structure import ModelStructure

CHECK_SIZE = 5
EXACT = 1e-8  # largest difference, relative to 1 + the size of the values
SOLVED = (
    1e-3  # of a solver whose steps depend on the whole batch; a wrong layout differs by far more
)
NO_LAYOUT = float("inf")


def find_layout(structure: ModelStructure, cohort: Cohort, seed: int) -> dict[str, int] | None:
    """The first layout in which every individual may have its own shared parameters, checked
    exactly; if no layout agrees exactly, the one that agrees best up to the error of a solver.
    """
    generator = make_generator(seed)
    many = cohort.repeat(-(-CHECK_SIZE // len(cohort)))
    # Picked at random: the first of a sorted table may have no observation to compare.
    small = many[torch.randperm(len(many), generator=generator)[:CHECK_SIZE]]
    draws = structure.draw_populations(small, CHECK_SIZE, generator)
    shared = torch.stack([structure.unconstrain_population(d, structure.shared) for d in draws])
    individuals = structure.draw_individuals(small, draws[0], 1, generator)[0]
    best, smallest = None, SOLVED
    pads = itertools.product((0, 1), repeat=min(len(structure.shared), 6))
    for pad in sorted(pads, key=lambda p: len(set(p))):
        layout = dict(zip(structure.shared, pad, strict=False)) | {
            n: pad[0] for n in structure.shared[6:]
        }
        apart = _difference(structure, small, individuals, shared, draws[0], layout, seed)
        if apart <= EXACT:
            return layout
        if apart < smallest:
            best, smallest = layout, apart
    return best


def _difference(
    structure: ModelStructure,
    cohort: Cohort,
    individuals: Tensor,
    shared: Tensor,
    population: Population,
    layout: Mapping[str, int],
    seed: int,
) -> float:
    """Largest difference between the layout and ordinary calls of the program; infinity where the
    layout cannot be used.
    """
    laid_out = dict(population) | lay_out(structure, shared, layout)
    ordinary = [
        dict(population) | structure.constrain_population(one, structure.shared) for one in shared
    ]
    pairs = _densities if structure.has_density else _simulations
    largest = 0.0
    try:
        with torch.no_grad():  # so that the same solver runs every time
            for x, expected in pairs(structure, cohort, individuals, laid_out, ordinary, seed):
                largest = max(largest, _apart(x, expected))
                if largest > SOLVED:
                    return NO_LAYOUT
    except (RuntimeError, ValueError, IndexError, TypeError):
        return NO_LAYOUT
    return largest


def _apart(x: Tensor, expected: Tensor) -> float:
    """Largest difference relative to 1 + the size; infinity where one of both is not finite."""
    same = (x == expected) | (x.isnan() & expected.isnan())
    apart = (x - expected).abs() / (1 + expected.abs())
    return float(torch.where(same, 0.0, apart.nan_to_num(NO_LAYOUT, NO_LAYOUT)).max())


def _densities(
    structure: ModelStructure,
    cohort: Cohort,
    individuals: Tensor,
    laid_out: Population,
    ordinary: list[dict[str, Tensor]],
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Simulate in the layout, then ask the ordinary program for each individual's log density.

    Raises:
        ValueError: The simulation has another shape than the data.
    """
    assign = Assign(
        laid_out, structure.individual, individuals, simulate=frozenset(structure.observed)
    )
    with seeded(seed):
        trace = run_program(structure.model, cohort, assign)
    log_prob = _per_individual(structure, trace, len(cohort))
    values = {name: trace.nodes[name]["value"] for name in structure.observed}
    for name, site in structure.observed.items():
        shape = individual_first(values[name], site.dim, site.event_dim).shape
        if shape != cohort[site.series].values.shape:
            raise ValueError(f"{name}: {shape}")
    for i, one in enumerate(ordinary):
        told = Assign(one, structure.individual, individuals, observations=values)
        trace = run_program(structure.model, cohort, told)
        yield log_prob[i], _per_individual(structure, trace, len(cohort))[i]


class _Means(TorchFunctionMode):
    """Laws whose random numbers depend on their parameters give their means instead, so that two
    runs can be compared value by value.
    """

    means: Mapping[Any, Callable[..., Tensor]] = {
        torch.poisson: lambda rate: rate,
        torch.binomial: lambda count, prob: count * prob,
        torch._standard_gamma: lambda concentration: concentration,
    }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in self.means:
            return self.means[func](*args)
        return func(*args, **(kwargs or {}))


def _simulations(
    structure: ModelStructure,
    cohort: Cohort,
    individuals: Tensor,
    laid_out: Population,
    ordinary: list[dict[str, Tensor]],
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Simulate in the layout, and each individual in the ordinary program, with the same random
    numbers.

    Raises:
        ValueError: The simulation has another shape than the data.
    """

    def simulate(population: Population) -> dict[str, Tensor]:
        with seeded(seed), _Means():
            return simulated_values(structure, cohort, individuals, population)[0]

    values = simulate(laid_out)
    for name in structure.series:
        if values[name].shape != cohort[name].values.shape:
            raise ValueError(f"{name}: {values[name].shape}")
    for i, one in enumerate(ordinary):
        expected = simulate(one)
        for name in structure.series:
            yield values[name][i], expected[name][i]


def _per_individual(structure: ModelStructure, trace: Trace, num: int) -> Tensor:
    terms = [
        sum_per_individual(site_log_prob(trace.nodes[n]), s.dim, num)
        for n, s in structure.observed.items()
    ]
    return torch.stack(terms).sum(0)
