r"""Simulation from a model.

Shared parameters have one value per individual, and observations are drawn once or several times
from one run of the model.
"""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from ..cohort import Cohort, as_recorded, as_scheduled
from ..runtime.isolation import seeded
from ..runtime.solver_context import failures_reported_by_caller
from .ordered_simulation import values_in_order
from .population_parameters import ParameterRoles, Population
from .program_run import Assign, run_program
from .sites import individual_rows


def simulate_repeatedly(
    structure: ParameterRoles,
    design: Cohort,
    unconstrained: Tensor,
    shared: Tensor,
    population: Population,
    generator: Generator,
    num_noise: int = 1,
) -> tuple[list[Cohort], Tensor]:
    r"""Draw observations several times given individual and shared parameters.

    The dynamics are solved once, and the distributions of the observation sites are sampled
    ``num_noise`` times. This is exact if the distribution of no observation site depends on
    another observation. A model with several observation sites is therefore run ``num_noise``
    times.

    Args:
        structure: The roles of the model.
        design: As in :meth:`~pyro_amortized.ModelStructure.simulate`, like the following arguments.
        unconstrained: Individual parameters.
        shared: Unconstrained shared parameters of each individual.
        population: Values of the other population sites.
        generator: Source of randomness.
        num_noise: Number of draws of the observations.

    Returns:
        One cohort per draw, and whether any simulation of an individual failed.
    """
    design = as_scheduled(design.to(dtype=torch.float64))
    with seeded(generator):
        runs = simulated_runs(
            structure, design, unconstrained.double(), shared.double(), population, num_noise
        )
    finite = [v[name].float().isfinite() | ~design[name].observed for v in runs for name in v]
    failed = ~torch.stack([ok.flatten(1).all(1) for ok in finite]).all(0)
    return [completed(design, values, failed) for values in runs], failed


def simulated_runs(
    structure: ParameterRoles,
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
    structure: ParameterRoles,
    cohort: Cohort,
    unconstrained: Tensor,
    population: Population,
    num_noise: int = 1,
) -> list[dict[str, Tensor]]:
    """Values of the observation sites, by series, one dictionary per draw of the noise."""
    if structure.readers:
        with torch.no_grad(), failures_reported_by_caller():
            runs = [
                values_in_order(structure, cohort, unconstrained, population)
                for _ in range(num_noise)
            ]
        return [_by_series(structure, run) for run in runs]
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
    return [_by_series(structure, values) for values in [first, *further]]


def _by_series(structure: ParameterRoles, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values of the observation sites by series, individuals first."""
    return {
        site.series: _floating(individual_rows(site, values[name]))
        for name, site in structure.observed.items()
    }


def _floating(x: Tensor) -> Tensor:
    """Values as numbers: some distributions draw categories as integers."""
    return x if x.is_floating_point() else x.double()


def _simulate_in_loop(
    structure: ParameterRoles,
    design: Cohort,
    unconstrained: Tensor,
    shared: Tensor,
    population: Population,
) -> dict[str, Tensor]:
    if shared.shape[1]:
        distinct, group = shared.unique(dim=0, return_inverse=True)
    else:  # no shared parameters: all individuals together
        distinct, group = shared[:1], torch.zeros(len(shared), dtype=torch.long)
    values = {name: torch.empty_like(design[name].values) for name in structure.series}
    for j, row in enumerate(distinct):
        rows = (group == j).nonzero()[:, 0]
        one = dict(population) | structure.constrain_population(row, structure.shared)
        for name, part in simulated_values(structure, design[rows], unconstrained[rows], one)[
            0
        ].items():
            values[name][rows] = part
    return values


def lay_out(
    structure: ParameterRoles, shared: Tensor, pads: Mapping[str, int]
) -> dict[str, Tensor]:
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
