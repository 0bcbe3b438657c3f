r"""Every individual with its own shared parameters, in one call of the program: is there a layout?

A shared parameter that is drawn once per individual gets the shape ``(individual, 1, ...,
*event)``. How many trailing singletons it needs depends on how the program uses it: none for
``sigma[..., None]``, one for a bare ``sigma``. The layouts are tried, and each is checked exactly
against ordinary calls of the program: by its density, or, where it has none, by simulations with
the same random numbers.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..cohort import Cohort
from ..runtime.isolation import make_generator, seeded
from .population_parameters import Population
from .program_simulation import lay_out, simulated_values
from .sites import Assign, individual_first, run_program, site_log_prob, sum_per_individual
from .structure import ModelStructure

CHECK_SIZE = 5


def find_layout(structure: ModelStructure, cohort: Cohort, seed: int) -> dict[str, int] | None:
    """The first layout in which every individual may have its own shared parameters, checked
    exactly.
    """
    generator = make_generator(seed)
    many = cohort.repeat(-(-CHECK_SIZE // len(cohort)))
    # Picked at random: the first of a sorted table may have no observation to compare.
    small = many[torch.randperm(len(many), generator=generator)[:CHECK_SIZE]]
    draws = structure.draw_populations(small, CHECK_SIZE, generator)
    shared = torch.stack([structure.unconstrain_population(d, structure.shared) for d in draws])
    individuals = structure.draw_individuals(small, draws[0], 1, generator)[0]
    pads = itertools.product((0, 1), repeat=min(len(structure.shared), 6))
    for pad in sorted(pads, key=lambda p: len(set(p))):
        layout = dict(zip(structure.shared, pad, strict=False)) | {
            n: pad[0] for n in structure.shared[6:]
        }
        if _layout_fits(structure, small, individuals, shared, draws[0], layout, seed):
            return layout
    return None


def _layout_fits(
    structure: ModelStructure,
    cohort: Cohort,
    individuals: Tensor,
    shared: Tensor,
    population: Population,
    layout: Mapping[str, int],
    seed: int,
) -> bool:
    laid_out = dict(population) | lay_out(structure, shared, layout)
    ordinary = [
        dict(population) | structure.constrain_population(one, structure.shared) for one in shared
    ]
    agree = _densities_agree if structure.has_density else _simulations_agree
    try:
        return agree(structure, cohort, individuals, laid_out, ordinary, seed)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False


def _densities_agree(
    structure: ModelStructure,
    cohort: Cohort,
    individuals: Tensor,
    laid_out: Population,
    ordinary: list[dict[str, Tensor]],
    seed: int,
) -> bool:
    """Simulate in the layout, then ask the ordinary program for each individual's log density:
    equal or not.
    """
    assign = Assign(
        laid_out, structure.individual, individuals, simulate=frozenset(structure.observed)
    )
    with seeded(seed), torch.no_grad():
        trace = run_program(structure.model, cohort, assign)
    found = _per_individual(structure, trace, len(cohort))
    values = {name: trace.nodes[name]["value"] for name in structure.observed}
    for name, site in structure.observed.items():
        shape = individual_first(values[name], site.dim, site.event_dim).shape
        if shape != cohort[site.series].values.shape:
            return False
    for i, one in enumerate(ordinary):
        told = Assign(one, structure.individual, individuals, observations=values)
        expected = _per_individual(
            structure, run_program(structure.model, cohort, told), len(cohort)
        )[i]
        if not torch.allclose(found[i], expected, rtol=1e-8, atol=1e-8, equal_nan=True):
            return False
    return True


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


def _simulations_agree(
    structure: ModelStructure,
    cohort: Cohort,
    individuals: Tensor,
    laid_out: Population,
    ordinary: list[dict[str, Tensor]],
    seed: int,
) -> bool:
    """Simulate in the layout, and each individual in the ordinary program, with the same random
    numbers: equal or not.
    """

    def simulate(population: Population) -> dict[str, Tensor]:
        with seeded(seed), _Means():
            return simulated_values(structure, cohort, individuals, population)[0]

    found = simulate(laid_out)
    if any(found[s].shape != cohort[s].values.shape for s in structure.series):
        return False
    for i, one in enumerate(ordinary):
        expected = simulate(one)
        if not all(
            torch.allclose(found[s][i], expected[s][i], rtol=1e-8, atol=1e-8, equal_nan=True)
            for s in structure.series
        ):
            return False
    return True


def _per_individual(structure: ModelStructure, trace: Trace, num: int) -> Tensor:
    terms = [
        sum_per_individual(site_log_prob(trace.nodes[n]), s.dim, num)
        for n, s in structure.observed.items()
    ]
    return torch.stack(terms).sum(0)
