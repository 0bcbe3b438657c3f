r"""Simulation from a model.

Shared parameters have one value per individual, and observations are drawn once or several times
from one run of the model.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..cohort import Cohort, as_recorded
from ..runtime.solver_context import failures_reported_by_caller
from .population_parameters import Population, Roles
from .program_run import Assign, run_program
from .sites import individual_first


def simulated_runs(
    structure: Roles,
    design: Cohort,
    unconstrained: Tensor,
    shared: Tensor,
    population: Population,
    num_noise: int,
) -> list[dict[str, Tensor]]:
    """``num_noise`` draws of the observation sites, each with values by series."""
    num_runs = num_noise if len(structure.observed) > 1 or structure.layout is None else 1
    runs: list[dict[str, Tensor]] = []
    for _ in range(num_runs):
        if structure.layout is not None:
            laid_out = dict(population) | lay_out(structure, shared, structure.layout)
            runs += simulated_values(
                structure, design, unconstrained, laid_out, num_noise // num_runs
            )
        else:
            runs += [_simulate_in_loop(structure, design, unconstrained, shared, population)]
    return runs


def completed(design: Cohort, values: dict[str, Tensor], failed: Tensor) -> Cohort:
    """A design with simulated values; nothing of a failed individual is marked as recorded."""
    is_recorded = {
        name: ~failed.reshape(-1, *[1] * (x.dim() - 1)).expand_as(x) for name, x in values.items()
    }
    finite = {name: x.nan_to_num(1.0, 1.0, 1.0) for name, x in values.items()}
    return as_recorded(design.with_observed(is_recorded).with_values(finite))


def simulated_values(
    structure: Roles,
    cohort: Cohort,
    unconstrained: Tensor,
    population: Population,
    num_noise: int = 1,
) -> list[dict[str, Tensor]]:
    """Values of the observation sites, by series, one dictionary per draw of the noise."""
    assign = Assign(
        population, structure.individual, unconstrained, simulate=frozenset(structure.observed)
    )
    with torch.no_grad(), failures_reported_by_caller():
        trace = run_program(structure.model, cohort, assign)
        first = {name: trace.nodes[name]["value"] for name in structure.observed}
        further = [
            {name: trace.nodes[name]["fn"]() for name in structure.observed}
            for _ in range(num_noise - 1)
        ]
    return [
        {
            site.series: individual_first(values[name], site.dim, site.event_dim)
            for name, site in structure.observed.items()
        }
        for values in [first, *further]
    ]


def _simulate_in_loop(
    structure: Roles, design: Cohort, unconstrained: Tensor, shared: Tensor, population: Population
) -> dict[str, Tensor]:
    distinct, group = shared.unique(dim=0, return_inverse=True)
    values = {name: torch.empty_like(design[name].values) for name in structure.series}
    for j, row in enumerate(distinct):
        rows = (group == j).nonzero()[:, 0]
        one = dict(population) | structure.constrain_population(row, structure.shared)
        for name, part in simulated_values(structure, design[rows], unconstrained[rows], one)[
            0
        ].items():
            values[name][rows] = part
    return values


def lay_out(structure: Roles, shared: Tensor, pads: Mapping[str, int]) -> dict[str, Tensor]:
    r"""Shared parameters with one value per individual, shape ``(individual, 1, ..., *event)``.

    Args:
        structure: The roles of the model.
        shared: Unconstrained shared parameters, shape ``(individual, shared)``.
        pads: Number of trailing singleton dimensions in addition to those of the plate, by name.
    """
    dim = min(site.dim for site in structure.individual.values())
    sites = [structure.population[name] for name in structure.shared]
    pieces = shared.split([site.num_unconstrained for site in sites], -1)
    return {
        site.name: site.constrain(piece).reshape(
            len(shared), *[1] * (-dim - 1 + pads[site.name]), *site.shape
        )
        for site, piece in zip(sites, pieces, strict=True)
    }
