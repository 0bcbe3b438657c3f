"""The sampler of the individuals of a cohort, made from the densities of their model."""

from typing import Any

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..guide import AmortizedGuide
from ..model import ModelStructure, Population
from ..model.individual_priors import complete_individual
from .guide_proposals import PyroGuideProposal
from .proposals import FlowProposal, PopulationProposal, Proposal, RowPosterior
from .sampler import Sampler


def make_sampler(
    guide: Any, structure: ModelStructure, cohort: Cohort, population: Population
) -> Sampler:
    """The sampler of the individuals of a cohort, in float64, given the population."""
    anchor = complete_individual(structure, cohort, population)

    def with_anchor(rows: Tensor) -> Cohort:
        return cohort[torch.cat([rows, anchor])]

    def padded(draws: Tensor) -> Tensor:
        return torch.cat([draws, draws[:, : len(anchor)]], 1)

    def target(draws: Tensor, rows: Tensor) -> Tensor:
        density = structure.log_density(with_anchor(rows), padded(draws), population)
        return density.total[:, : len(rows)]

    def draw_population(num: int, rows: Tensor, generator: Generator) -> Tensor:
        draws = structure.draw_individuals(with_anchor(rows), population, num, generator)
        return draws[:, : len(rows)]

    def log_population(draws: Tensor, rows: Tensor) -> Tensor:
        log_prob = structure.log_individual(with_anchor(rows), padded(draws), population)
        return log_prob[:, : len(rows)]

    def posterior_of(rows: Tensor) -> RowPosterior:
        posterior = guide.individual_posterior(with_anchor(rows), population, structure)
        return posterior.take(torch.arange(len(rows)))

    proposal: Proposal
    if guide is None:
        proposal = PopulationProposal(draw_population, log_population)
    elif isinstance(guide, AmortizedGuide):
        proposal = FlowProposal(posterior_of)
    else:
        proposal = PyroGuideProposal(guide, structure, cohort, population)
    return Sampler(target, draw_population, log_population, proposal)
