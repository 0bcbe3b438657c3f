r"""Starting values of a fit, from a few draws of some individuals.

The median of the prior and some draws of it are compared by the likelihood on a few draws of some
individuals. The best of them is improved there, by rounds of drawing and maximising (decision 036).
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..errors import FitError
from ..model import Population
from ..runtime.random_numbers import fork_seed, make_generator
from ..runtime.workers import run_each
from ..sampling.proposals import Refinement
from ..sampling.refinement_settings import ROUGH_EFFORT
from .fit_rounds import Start, run_rounds
from .maximum_search import Search
from .round_schedule import RoundSchedule


@dataclass(frozen=True)
class StartSettings:
    """Effort of the search for starting values."""

    # Draws from the prior, whose median is the first candidate, and draws of each individual that
    # the candidates are compared by.
    num_prior_draws: int = 40
    num_candidate_draws: int = 50
    # Draws of each individual with which the best candidate is improved.
    num_draws: int = 100

    # Individuals that represent a cohort. In one of at most twice as many, the rounds of the fit
    # start at the best candidate.
    max_individuals: int = 60
    max_whole: int = 120
    # Individuals by which the candidates of such a cohort are compared.
    max_compared: int = 30
    # In a large cohort the best start is improved with more and more individuals, each time so many
    # of them as long as all are at least the last factor as many, before all are drawn.
    more_individuals: tuple[int, ...] = (1_000, 10_000)
    min_factor: int = 4
    # Rounds of drawing and maximising, and the gain of the log likelihood below which they end.
    max_rounds: int = 8
    min_gain: float = 10.0

    def schedule(self, num_draws: int) -> RoundSchedule:
        """The rounds, with the same number of draws in all of them."""
        gains = (self.min_gain, self.min_gain)
        return RoundSchedule(num_draws, num_draws, 0.0, *gains, self.max_rounds, True)


START = StartSettings()


def locate_population(
    search: Search,
    *,
    num_starts: int = 4,
    num_draws: int = START.num_draws,
    fixed: Population | None = None,
    seed: int | Generator = 0,
) -> Tensor:
    r"""Find the neighbourhood of the best population from a few draws.

    A large cohort is represented by individuals chosen at random; in a very large one, the best
    start is then improved with more of them.

    Args:
        search: The search; the same one is then used for the fit.
        num_starts: Number of starts; the best of them is improved.
        num_draws: Draws per individual.
        fixed: Values of sites that are held.
        seed: Seed or generator.

    Returns:
        The best population in unconstrained coordinates, shape ``(population,)``.

    Raises:
        FitError: No start leads to a finite likelihood.
    """
    generator = make_generator(seed)
    part = search.part(START.max_individuals, generator)
    held = search.structure.coordinates(fixed or {})
    for start in candidates(part, num_starts=num_starts, fixed=fixed, seed=generator):
        best = run_rounds(part, start, held, START.schedule(num_draws), generator)
        if math.isfinite(best.value):
            break
    for num in START.more_individuals:
        if len(search.cohort) >= START.min_factor * num and math.isfinite(best.value):
            part, vector = search.part(num, generator), best.ascent.optimum.vector
            best = run_rounds(part, Start(vector), held, START.schedule(num_draws), generator)
    if not math.isfinite(best.value):
        raise FitError(
            f"None of {num_starts} starts has a finite likelihood.",
            "data that the model can produce under its prior.",
            "check units and priors, and `plots.individual_fits`; or pass `start=`.",
        )
    return best.ascent.optimum.vector


def candidates(
    search: Search,
    *,
    num_starts: int = 4,
    fixed: Population | None = None,
    seed: int | Generator = 0,
) -> list[Start]:
    r"""Populations to start from, those with the largest likelihood on a few draws first.

    Under ``joblib.parallel_config`` they are compared in parallel, with the same result.

    Args:
        search: The search.
        num_starts: Number of populations: the median of the prior, and draws of it.
        fixed: Values of sites that are held.
        seed: Seed or generator.

    Returns:
        The populations, with the mixtures of the individuals.
    """
    generator, structure = make_generator(seed), search.structure
    held = structure.coordinates(fixed or {})
    known = structure.unconstrain_population(structure.initial_population() | dict(fixed or {}))
    draws = structure.draw_populations(search.cohort, START.num_prior_draws, generator)
    vectors = torch.stack([structure.unconstrain_population(draw) for draw in draws])
    starts = torch.cat([vectors.median(0).values.unsqueeze(0), vectors[: num_starts - 1]])
    starts = torch.where(held, known, starts)
    tasks = [(search, x, START.num_candidate_draws, fork_seed(generator)) for x in starts]
    values, mixtures = zip(*run_each(_score, tasks), strict=True)
    order = torch.tensor(values).nan_to_num(-math.inf).argsort(descending=True)
    return [Start(starts[j], mixtures[j]) for j in order.tolist()]


def _score(search: Search, vector: Tensor, num_draws: int, seed: int) -> tuple[float, Refinement]:
    """The objective at a population, on a few new draws, and the mixtures they come from."""
    individuals = search.draw(vector, num_draws, make_generator(seed), effort=ROUGH_EFFORT)
    return search.value_of(individuals), individuals.refinement
