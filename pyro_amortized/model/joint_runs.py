r"""Everything that one run of a model gives for a population and parameters of individuals."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..runtime.isolation import seeded
from ..runtime.solver_context import failures_reported_by_caller
from .pointwise_densities import log_probs_of_values
from .population_parameters import Population
from .program_run import Assign, run_program
from .program_simulation import simulated_values
from .sites import individual_first, site_log_prob, sum_per_individual
from .structure import ModelStructure


class JointRun(NamedTuple):
    r"""Results of one run.

    Args:
        values: Values of the individual sites in their support, by name, shape ``(individual,
            *event)``.
        log_prior: Log density of each individual site given the population, by name, shape
            ``(individual,)``.
        log_prob: Log density of each value of a series, by name, shape of the series; joint
            distributions are left out.
        simulated: New observations by series, shape of the series.
    """

    values: dict[str, Tensor]
    log_prior: dict[str, Tensor]
    log_prob: dict[str, Tensor]
    simulated: dict[str, Tensor]


def joint_run(
    structure: ModelStructure,
    cohort: Cohort,
    unconstrained: Tensor,
    population: Population,
    generator: Generator,
) -> JointRun:
    r"""Run a model once.

    Args:
        structure: The structure of the model.
        cohort: N individuals, in float64.
        unconstrained: Their parameters, shape ``(individual, latent)``.
        population: Values of the population sites.
        generator: Source of the new observations.
    """
    assign = Assign(population, structure.individual, unconstrained)
    with torch.no_grad(), failures_reported_by_caller(), seeded(generator):
        trace = run_program(structure.model, cohort, assign)
        if len(structure.observed) == 1:
            (site,) = structure.observed.values()
            value = trace.nodes[site.name]["fn"]()
            simulated = {site.series: individual_first(value, site.dim, site.event_dim)}
        else:  # an observation may depend on another one
            (simulated,) = simulated_values(structure, cohort, unconstrained, population)
    values, log_prior = {}, {}
    for name, individual in structure.individual.items():
        node = trace.nodes[name]
        values[name] = individual_first(node["value"], individual.dim, individual.event_dim)
        log_prior[name] = sum_per_individual(site_log_prob(node), individual.dim, len(cohort))
    return JointRun(values, log_prior, log_probs_of_values(structure, trace), simulated)
