r"""Every individual with its own shared parameters, in one call of the program: is there a layout?

A shared parameter that is drawn once per individual gets the shape ``(individual, 1, ...,
*event)``. How many trailing singletons it needs depends on how the program uses it: none for
``sigma[..., None]``, one for a bare ``sigma``. The layouts are tried, and each is checked exactly
against ordinary calls of the program.
"""

import itertools
from collections.abc import Mapping

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..cohort import Cohort
from ..isolation import make_generator, seeded
from .model import ModelStructure
from .simulation import lay_out
from .sites import (
    Assign,
    has_density,
    individual_first,
    run_program,
    site_log_prob,
    sum_per_individual,
)

CHECK_SIZE = 5


def find_layout(structure: ModelStructure, cohort: Cohort, seed: int) -> dict[str, int] | None:
    """The first layout in which every individual may have its own shared parameters, checked
    exactly.
    """
    if structure.shared and not structure.has_density and not structure.nuisance:
        return None  # nothing to check a layout with
    generator = make_generator(seed)
    small = cohort.repeat(-(-CHECK_SIZE // len(cohort)))[:CHECK_SIZE]
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
    population: Mapping[str, Tensor],
    layout: Mapping[str, int],
    seed: int,
) -> bool:
    """Simulate in the layout, then ask the ordinary program for each individual's log density:
    equal or not.
    """
    laid_out = dict(population) | lay_out(structure, shared, layout)
    assign = Assign(
        laid_out, structure.individual, individuals, simulate=frozenset(structure.observed)
    )
    try:
        with seeded(seed), torch.no_grad():
            trace = run_program(structure.model, cohort, assign)
        found = _per_individual(structure, trace, len(cohort))
        names = [*structure.observed, *structure.nuisance]
        values = {name: trace.nodes[name]["value"] for name in names}
        shapes = {
            name: tuple(individual_first(values[name], s.dim, s.event_dim).shape)
            for name, s in structure.observed.items()
        }
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    unknown = not all(has_density(trace.nodes[name]) for name in structure.observed)
    if structure.shared and unknown:
        return False  # nothing to check with
    if any(shapes[name] != cohort[s.series].values.shape for name, s in structure.observed.items()):
        return False
    for i in range(len(cohort)):
        one = dict(population) | structure.constrain_population(shared[i], structure.shared)
        ordinary = run_program(
            structure.model,
            cohort,
            Assign(one, structure.individual, individuals, observations=values),
        )
        expected = _per_individual(structure, ordinary, len(cohort))[i]
        if not torch.allclose(found[i], expected, rtol=1e-8, atol=1e-8, equal_nan=True):
            return False
    return True


def _per_individual(structure: ModelStructure, trace: Trace, num: int) -> Tensor:
    terms = [
        sum_per_individual(site_log_prob(trace.nodes[n]), s.dim, num)
        for n, s in structure.observed.items()
    ]
    return torch.stack(terms).sum(0)
