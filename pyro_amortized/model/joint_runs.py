r"""Everything that runs of a model give for draws of the individuals and of the population.

The individuals of draw k have the population :math:`\Psi_k`. Where the model takes shared
parameters with one value per individual, many draws are computed in one run of it, so that dynamics
are solved together; otherwise each draw has a run of its own.
"""

from typing import NamedTuple

import torch
from pyro.poutine.trace_struct import Trace
from torch import Generator, Size, Tensor

from ..cohort import Cohort
from ..numerics.vectorized_map import AtEach
from ..runtime.isolation import seeded
from ..runtime.solver_context import caching_here, failures_reported_by_caller
from .pointwise_densities import log_probs_of_values
from .population_parameters import Population
from .program_run import Assign, run_program
from .program_simulation import lay_out, simulated_values
from .sites import individual_log_prob, individual_rows
from .structure import ModelStructure

# Values of an individual site that two kinds of runs may give, relative and absolute: another order
# of the same operations. Supports that depend on the population differ by far more.
ROUNDING = (1e-9, 1e-9)


class JointRuns(NamedTuple):
    r"""Results of the runs.

    Args:
        values: Values of the individual sites in their support, by name, shape ``(draw,
            individual, *event)``.
        log_prior: Log density of each individual site given the population, by name, shape
            ``(draw, individual)``.
        log_prob: Log density of each value of a series, by name, shape ``(draw,)`` and that of the
            series; joint distributions are left out.
        simulated: New observations by series, shape as ``log_prob``.
    """

    values: dict[str, Tensor]
    log_prior: dict[str, Tensor]
    log_prob: dict[str, Tensor]
    simulated: dict[str, Tensor]


def joint_runs(
    structure: ModelStructure,
    cohort: Cohort,
    unconstrained: Tensor,
    vectors: Tensor,
    generator: Generator,
) -> JointRuns:
    r"""Run a model at draws of the individuals, each with a population of its own.

    Args:
        structure: The structure of the model.
        cohort: N individuals.
        unconstrained: Their parameters, shape ``(draw, individual, latent)``.
        vectors: Unconstrained population parameters, shape ``(draw, population)``.
        generator: Source of the new observations.
    """
    cohort, draws = cohort.to(dtype=torch.float64), unconstrained.double()
    size = structure.draws_per_call(cohort) if structure.layout is not None else 1
    of_individuals = _IndividualParts(structure, cohort, size)
    runs: list[JointRuns] = []
    for part, populations in zip(draws.split(size), vectors.split(size), strict=True):
        if len(part) > 1:
            shared = populations[:, structure.coordinates(structure.shared)]
            each = shared.repeat_interleave(len(cohort), 0)
            one = structure.constrain_population(populations[0])
            laid_out = one | lay_out(structure, each, structure.layout or {})
            together = _run(structure, cohort, part, laid_out, generator)
            with seeded(generator):  # a program may draw nuisance sites
                values, log_prior = of_individuals(part, populations)
            if all(torch.allclose(x, together.values[n], *ROUNDING) for n, x in values.items()):
                runs.append(together._replace(log_prior=log_prior))
                continue
        for k, vector in enumerate(populations):  # a support depends on the population
            population = structure.constrain_population(vector)
            runs.append(_run(structure, cohort, part[k : k + 1], population, generator))
    gathered = ({n: torch.cat([run[k][n] for run in runs]) for n in runs[0][k]} for k in range(4))
    return JointRuns(*gathered)


class _IndividualParts:
    """Values and log densities of the individual sites at each population; the observations are not
    computed.
    """

    def __init__(self, structure: ModelStructure, cohort: Cohort, size: int) -> None:
        self.structure, self.cohort = structure, cohort
        self.shapes: dict[str, Size] = {}
        self.at_each = AtEach(self._flat, size)

    def __call__(
        self, draws: Tensor, vectors: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """By site, shapes ``(draw, individual, *event)`` and ``(draw, individual)``."""
        flat = self.at_each(torch.cat([vectors, draws.flatten(1)], 1))
        densities = flat[:, : len(self.shapes) * len(self.cohort)].unflatten(
            1, (-1, len(self.cohort))
        )
        log_prior = dict(zip(self.shapes, densities.unbind(1), strict=True))
        sizes = [shape.numel() for shape in self.shapes.values()]
        pieces = flat[:, densities[0].numel() :].split(sizes, 1)
        values = {
            name: piece.reshape(-1, *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }
        return values, log_prior

    def _flat(self, both: Tensor) -> Tensor:
        structure, num = self.structure, len(self.cohort)
        num_population = len(both) - num * structure.num_latent
        population = structure.constrain_population(both[:num_population])
        rows = both[num_population:].reshape(num, structure.num_latent)
        assign = Assign(population, structure.individual, rows)
        trace = run_program(structure.model, self.cohort, assign, frozenset(structure.individual))
        values, log_prior = _of_individuals(structure, trace, num)
        self.shapes = {name: x.shape for name, x in values.items()}
        return torch.cat([x.flatten() for part in (log_prior, values) for x in part.values()])


def _of_individuals(
    structure: ModelStructure, trace: Trace, num: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    values, log_prior = {}, {}
    for name, site in structure.individual.items():
        node = trace.nodes[name]
        values[name] = individual_rows(site, node["value"])
        log_prior[name] = individual_log_prob(site, node, num)
    return values, log_prior


def _run(
    structure: ModelStructure,
    cohort: Cohort,
    draws: Tensor,
    population: Population,
    generator: Generator,
) -> JointRuns:
    """One run of the model with the cohort repeated for each draw."""
    repeated, rows = cohort.repeat(len(draws)), draws.flatten(0, 1)
    assign = Assign(population, structure.individual, rows)
    with torch.no_grad(), failures_reported_by_caller(), seeded(generator), caching_here():
        trace = run_program(structure.model, repeated, assign)
        if len(structure.observed) == 1 and not structure.readers:
            (site,) = structure.observed.values()
            value = trace.nodes[site.name]["fn"]()
            simulated = {site.series: individual_rows(site, value)}
        else:  # an observation may depend on another one
            (simulated,) = simulated_values(structure, repeated, rows, population)
    values, log_prior = _of_individuals(structure, trace, len(repeated))
    log_prob = log_probs_of_values(structure, trace)
    results = (values, log_prior, log_prob, simulated)
    shape = draws.shape[:2]
    return JointRuns(
        *({n: x.reshape(*shape, *x.shape[1:]) for n, x in result.items()} for result in results)
    )
