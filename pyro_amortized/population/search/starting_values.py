r"""Starting values of a fit.

The median of the prior and some draws of it are compared by the likelihood of some individuals. The
best of them is improved by rounds on points about the modes of the individuals (decision 073),
followed by rounds of scoring where these do not come near the maximum (decision 076). Where there
are no such points, it is improved by rounds on a few draws of some individuals (decision 036).
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ...errors import FitError
from ...model import Population
from ...runtime.random_numbers import fork_seed, make_generator
from ...runtime.workers import run_each
from ...sampling.refinement_settings import ROUGH_EFFORT
from ...sampling.weighted_draws import Refinement
from .fit_rounds import Start, run_rounds
from .maximum_search import Search
from .modal_rounds.modal_points import unit_points
from .modal_rounds.modal_search import ModalSearch, has_modal_rounds
from .round_schedule import RoundSchedule
from .scoring_search import ScoringSearch
from .trust_region import ROUNDS


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
    # The same for rounds of all individuals on points about their modes: one with draws costs as
    # much as ten of them. If the last one gained less than the third number, the maximum is near.
    max_modal_rounds: int = 15
    min_modal_gain: float = 0.5
    max_near_gain: float = 3.0
    # The same for the rounds of scoring on the first number of draws.
    max_scoring_rounds: int = 12
    min_scoring_gain: float = 1.5

    def schedule(self, num_draws: int) -> RoundSchedule:
        """The rounds, with the same number of draws in all of them."""
        gains = (self.min_gain, self.min_gain)
        return RoundSchedule(num_draws, num_draws, 0.0, *gains, self.max_rounds, True)

    def modal_schedule(self, num_points: int) -> RoundSchedule:
        """The rounds of all individuals on points about their modes."""
        gains = (self.min_modal_gain, self.min_modal_gain)
        return RoundSchedule(num_points, num_points, 0.0, *gains, self.max_modal_rounds, True)

    def scoring_schedule(self) -> RoundSchedule:
        """The rounds of scoring."""
        gains = (self.min_scoring_gain, self.min_scoring_gain)
        rounds = self.max_scoring_rounds
        return RoundSchedule(self.num_draws, self.num_draws, 0.0, *gains, rounds, True)


START = StartSettings()


def find_start(
    search: Search, *, num_starts: int, fixed: Population | None, generator: Generator
) -> Start:
    r"""The place where the rounds with draws of all individuals start.

    Args:
        search: The search; the same one is then used for the fit.
        num_starts: Number of populations that are compared; the best of them is improved.
        fixed: Values of sites that are held.
        generator: Source of randomness.

    Raises:
        FitError: No start leads to a finite likelihood.
    """
    if has_modal_rounds(search):
        start = _modal_start(search, num_starts, fixed, generator)
        if start is not None:
            return start
    if len(search.cohort) > START.max_whole:
        return Start(locate_population(search, num_starts=num_starts, fixed=fixed, seed=generator))
    is_whole = len(search.cohort) <= START.max_individuals
    part = search if is_whole else search.part(START.max_compared, generator)
    best = candidates(part, num_starts=num_starts, fixed=fixed, seed=generator)[0]
    return best if is_whole else Start(best.vector)


def _modal_start(
    search: Search, num_starts: int, fixed: Population | None, generator: Generator
) -> Start | None:
    """The best start, improved on points about the modes, first of a part of many individuals; None
    if there is no finite likelihood.
    """
    modal = ModalSearch.like(search)
    held = search.structure.coordinates(fixed or {})
    num_points = len(unit_points(len(search.structure.latent_names)))
    part = modal.part(START.max_compared, generator)
    compared = candidates(part, num_starts=num_starts, fixed=fixed, seed=generator)
    best = compared[0] if part is modal else Start(compared[0].vector)
    try:
        if len(search.cohort) > START.max_whole:
            part = modal.part(START.max_individuals, generator)
            first = run_rounds(part, best, held, START.schedule(num_points), generator)
            best = Start(first.ascent.optimum.vector)
        rounds = run_rounds(modal, best, held, START.modal_schedule(num_points), generator)
        for _ in range(ROUNDS.max_jumps):
            larger = modal.larger(rounds.individuals, held)
            if larger is None:
                break
            schedule = START.modal_schedule(num_points)
            rounds = run_rounds(modal, Start(larger), held, schedule, generator)
        if not math.isfinite(rounds.value):
            return None
        if rounds.ascent.gain >= START.max_near_gain:
            place = Start(rounds.ascent.optimum.vector, rounds.individuals.refinement)
            scoring, schedule = ScoringSearch.like(search), START.scoring_schedule()
            rounds = run_rounds(scoring, place, held, schedule, generator)
    except FitError:  # impossible data of an individual, perhaps because its mode was missed
        return Start(compared[0].vector)
    near = rounds.ascent.gain < START.max_near_gain
    known = None if search.guide is not None else rounds.individuals.refinement
    return Start(rounds.ascent.optimum.vector, known, near)


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
