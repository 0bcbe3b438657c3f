r"""Individuals in blocks of limited size, each of which is drawn by a task of its own.

A task is a pure function of the model, the data of its individuals, the population and a seed. The
blocks depend on the cohort and on the number of draws alone, so the result is the same in this
process and in any number of workers (``joblib.parallel_config``).
"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ....cohort import Cohort
from ....errors import AmortizedWarning
from ....guide import AmortizedGuide
from ....model import ModelStructure
from ....runtime.random_numbers import fork_seed
from ....runtime.workers import run_each
from ....sampling.individual_draws import sample_with_structure
from ....sampling.individuals import IndividualPosteriors, individual_posteriors
from ....sampling.last_steps import with_last_steps
from ....sampling.refinement_settings import Effort
from ....sampling.weighted_draws import Refinement, Sampled, Weighted
from .summarized_draws import BlockSummary, SummarizedDraws, block_summary


@dataclass(frozen=True)
class BlockSettings:
    """Size of the blocks."""

    # Draws times individuals of a block, and observed values at all of them. A block of this size
    # needs some hundred megabytes; smaller ones lose time to the calls of the model (a fifth of the
    # time of a round of 1,000 cells with 2 million values), and larger ones leave workers without a
    # task at the end of a round.
    max_rows: int = 100_000
    max_values: int = 8_000_000

    def size(self, cohort: Cohort, num_draws: int) -> int:
        """Number of individuals in a block."""
        per_individual = cohort.num_values / len(cohort)
        by_values = self.max_values / (num_draws * max(1.0, per_individual))
        return max(1, int(min(self.max_rows / num_draws, by_values)))


BLOCKS = BlockSettings()


class Drawer(NamedTuple):
    """What all blocks of a cohort have in common: the model, the guide or None, and the size of a
    large step in each unconstrained population parameter, shape ``(population,)``.
    """

    structure: ModelStructure
    guide: AmortizedGuide | None
    scale: Tensor


class DrawRequest(NamedTuple):
    """The draws that are wanted: the population in unconstrained coordinates, shape
    ``(population,)``, their number, and what is done for individuals whose weights are poor.
    """

    vector: Tensor
    num_draws: int
    effort: Effort


def summarized_draws(
    drawer: Drawer,
    cohort: Cohort,
    request: DrawRequest,
    generator: Generator,
    known: Refinement | None = None,
) -> SummarizedDraws:
    r"""Draws of all individuals, of which only what a round needs is kept.

    Args:
        drawer: Model and guide.
        cohort: The data.
        request: The population and the number of draws.
        generator: Source of randomness.
        known: Mixtures of the individuals that are tried first.
    """
    tasks = _tasks(drawer, cohort, request, generator, known)
    summary = BlockSummary.joined(run_each(_summarized, tasks, counted=False))
    population = drawer.structure.constrain_population(request.vector)
    return SummarizedDraws(drawer.structure, cohort, population, request.num_draws, summary)


def draws_by_blocks(
    drawer: Drawer,
    cohort: Cohort,
    request: DrawRequest,
    generator: Generator,
    known: Refinement | None = None,
) -> IndividualPosteriors:
    """As :func:`summarized_draws`, with the draws themselves. They are the result of a fit:
    individuals whose weights are poor get the full effort, and a warning names those that stay so.
    """
    structure = drawer.structure
    tasks = _tasks(drawer, cohort, request, generator, known)
    parts = run_each(_drawn_parts, tasks, counted=False)
    weighted, refinement, evaluations = zip(*parts, strict=True)
    individuals = individual_posteriors(
        structure,
        cohort.to(dtype=torch.float64),
        structure.constrain_population(request.vector),
        Sampled(Weighted.cat(weighted), Refinement.cat(refinement)),
        torch.cat(evaluations),
        "population" if drawer.guide is None else "guide",
    )
    return with_last_steps(individuals, drawer.guide, generator)


def summary_by_blocks(individuals: IndividualPosteriors, scale: Tensor) -> SummarizedDraws:
    """What a round needs of draws that are there, computed block by block."""
    cohort, num_draws = individuals.cohort, individuals.num_draws
    blocks = torch.arange(len(cohort)).split(BLOCKS.size(cohort, num_draws))
    summary = BlockSummary.joined([block_summary(individuals.take(x), scale) for x in blocks])
    return SummarizedDraws(
        individuals.structure, cohort, individuals.population, num_draws, summary
    )


def _tasks(
    drawer: Drawer,
    cohort: Cohort,
    request: DrawRequest,
    generator: Generator,
    known: Refinement | None,
) -> list[tuple[Drawer, Cohort, DrawRequest, int, Refinement | None]]:
    blocks = torch.arange(len(cohort)).split(BLOCKS.size(cohort, request.num_draws))
    return [
        (drawer, cohort[rows], request, fork_seed(generator), known and known.take(rows))
        for rows in blocks
    ]


def _drawn(
    drawer: Drawer, cohort: Cohort, request: DrawRequest, seed: int, known: Refinement | None
) -> IndividualPosteriors:
    """The draws of a block, without warnings: a block is not the cohort of the user."""
    structure = drawer.structure
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmortizedWarning)
        return sample_with_structure(
            structure,
            drawer.guide,
            cohort,
            structure.constrain_population(request.vector),
            num_draws=request.num_draws,
            seed=seed,
            effort=request.effort,
            known=known,
        )


def _summarized(
    drawer: Drawer, cohort: Cohort, request: DrawRequest, seed: int, known: Refinement | None
) -> BlockSummary:
    return block_summary(_drawn(drawer, cohort, request, seed, known), drawer.scale)


def _drawn_parts(
    drawer: Drawer, cohort: Cohort, request: DrawRequest, seed: int, known: Refinement | None
) -> tuple[Weighted, Refinement, Tensor]:
    """The draws of a block without its model and data, which the caller has."""
    drawn = _drawn(drawer, cohort, request, seed, known)
    weighted, refinement = drawn.sampled
    return weighted, refinement, drawn.evaluations
