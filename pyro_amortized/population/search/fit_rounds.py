r"""Rounds of drawing and maximising, in which the draws follow the population.

.. math:: \Psi^{(r+1)} = \arg\max_\Psi \sum_i \log \hat p_r(y_i \mid \Psi),

where the draws of round r were made at :math:`\Psi^{(r)}`, within limits. New draws at the result
show whether the likelihood has risen as promised. If not, the round is repeated with tighter limits
(``pyro_amortized.population.search.trust_region``). The rounds end when new draws have nothing to
gain.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Generator, Tensor

from ...runtime.progress import count_step
from ...sampling.individuals import IndividualPosteriors
from ...sampling.refinement_settings import FULL_EFFORT
from ...sampling.weighted_draws import Refinement
from ..likelihood.expanded_likelihood import ExpandedLikelihood
from ..likelihood.large_cohorts.summarized_draws import RoundDraws, SummarizedDraws
from .estimate_errors import rough_curvature
from .false_zeros import leave_false_zeros
from .impossible_data import check_possible, impossible_rows
from .maximum_search import Ascent, Search
from .round_progress import DrawnPopulation, RoundProgress, gain_between, place_of
from .round_schedule import RoundSchedule
from .trust_region import ROUNDS


class Rounds(NamedTuple):
    r"""The result of all rounds.

    Args:
        search: What they had in common.
        ascent: The last round.
        individuals: New draws at its result, on which nothing was fitted.
        num_rounds: Number of rounds.
        min_gain: Gain below which they end.
    """

    search: Search
    ascent: Ascent
    individuals: RoundDraws
    num_rounds: int
    min_gain: float

    @property
    def draws(self) -> IndividualPosteriors:
        """The new draws of rounds that were not rough, all of which are kept."""
        assert isinstance(self.individuals, IndividualPosteriors)
        return self.individuals

    @property
    def value(self) -> float:
        """The objective on the new draws, -inf where it is not finite."""
        value = self.search.value_of(self.individuals)
        return value if math.isfinite(value) else -math.inf


class Start(NamedTuple):
    """An unconstrained population, mixtures of the individuals to try first, or None, and whether
    the maximum is near: the first round then uses all draws.
    """

    vector: Tensor
    known: Refinement | None = None
    near: bool = False


def run_rounds(
    search: Search, start: Start, held: Tensor, schedule: RoundSchedule, generator: Generator
) -> Rounds:
    r"""Draw and maximise in turn until new draws have nothing to gain.

    Args:
        search: The search.
        start: Where it starts.
        held: Coordinates that are held, same shape.
        schedule: Numbers of draws and rounds.
        generator: Source of randomness.

    Raises:
        FitError: The data of an individual are all but impossible at the start.
    """
    progress = first_progress(search, start, schedule, generator)
    return continue_rounds(search, progress, held, schedule, generator)


def continue_rounds(
    search: Search,
    progress: RoundProgress,
    held: Tensor,
    schedule: RoundSchedule,
    generator: Generator,
    keep: Callable[[RoundProgress, Generator], None] | None = None,
) -> Rounds:
    """The rounds from where they have come to; arguments as in :func:`run_rounds`. What they have
    come to after each round is given to ``keep``.
    """
    schedule = progress.resumed(schedule)
    while True:
        if keep is not None:
            keep(progress, generator)
        progress, vanishing = leave_false_zeros(search, progress, held, schedule, generator)
        place, near = progress.place, progress.near
        level, rough = progress.region.level, schedule.rough or not near
        ascent = search.ascend(place.likelihood, place.vector, held | vanishing, rough, level)
        num_rounds = progress.num_rounds + 1
        count_step(f"log likelihood {ascent.optimum.value:.1f}")
        ascent, schedule = _with_enough_draws(search, ascent, schedule)
        min_gain = schedule.smallest_gain(place.likelihood, progress.num_idle)
        if not math.isfinite(ascent.gain):
            return Rounds(search, ascent, place.individuals, num_rounds, min_gain)
        enough = near and place.individuals.num_draws >= schedule.num_draws
        if is_last := enough and progress.is_last(ascent, min_gain):
            min_gain = max(min_gain, ROUNDS.max_idle_promise)
            if progress.is_idle:  # Monte Carlo error ends the rounds, not the optimiser
                ascent = ascent._replace(optimum=ascent.optimum._replace(converged=True))
        done = is_last or num_rounds == schedule.max_rounds
        near = near or ascent.gain < schedule.near_gain
        new = _drawn_after(search, ascent, schedule, near, done, generator)
        if done:
            return Rounds(search, ascent, new, num_rounds, min_gain)
        progress = progress.with_draws_of(schedule)._replace(near=near, num_rounds=num_rounds)
        after = _after_round(search, progress, ascent, new, schedule, generator)
        if after is None:
            place = _with_all_draws(search, place, schedule, generator)
            return _stopped(search, ascent, place, num_rounds, min_gain)
        progress = after


def _with_enough_draws(
    search: Search, ascent: Ascent, schedule: RoundSchedule
) -> tuple[Ascent, RoundSchedule]:
    """A round with the curvature where it ended, if that needs nothing more, and a schedule with
    the draws that the Monte Carlo errors there need, if the round shows this.
    """
    if not schedule.shows_draws_needed(ascent):
        return ascent, schedule
    curvature, likelihood = rough_curvature(search, ascent), ascent.likelihood
    schedule = schedule.with_enough_draws(ascent, curvature, search.scale)
    if not (isinstance(likelihood, ExpandedLikelihood) and likelihood.is_regressed):
        ascent = ascent._replace(curvature=curvature)
    return ascent, schedule


def _drawn_after(
    search: Search,
    ascent: Ascent,
    schedule: RoundSchedule,
    near: bool,
    done: bool,
    generator: Generator,
) -> RoundDraws:
    """Draws at the result of a round, for the next one or for the result of all."""
    is_result = done and not schedule.rough
    num_draws = schedule.num_draws if near else min(schedule.first_draws, schedule.num_draws)
    if is_result:
        num_draws = max(num_draws, schedule.result_draws)
    vector, effort = ascent.optimum.vector, schedule.effort(near, is_result)
    known = ascent.mixtures_at(vector)
    return search.draw_for_round(vector, num_draws, generator, known, effort)


def first_progress(
    search: Search, start: Start, schedule: RoundSchedule, generator: Generator
) -> RoundProgress:
    """The first population, if all data are possible there; arguments as in :func:`run_rounds`."""
    num_draws = min(schedule.first_draws, schedule.num_draws)
    if start.near:
        num_draws = schedule.num_draws
    near = num_draws == schedule.num_draws
    effort = schedule.effort(near)
    individuals = search.draw_for_round(start.vector, num_draws, generator, start.known, effort)
    if len(impossible_rows(individuals)):  # perhaps because their mode was missed
        known, effort = individuals.refinement, effort._replace(search_modes=True)
        individuals = search.draw_for_round(start.vector, num_draws, generator, known, effort)
    check_possible(individuals)
    return RoundProgress(place_of(search, start.vector, individuals), near)


def _after_round(
    search: Search,
    progress: RoundProgress,
    ascent: Ascent,
    new: RoundDraws,
    schedule: RoundSchedule,
    generator: Generator,
) -> RoundProgress | None:
    """The next place, or the same with more draws or tighter limits; None if there are none."""
    place, region = progress.place, progress.region
    gain, error = gain_between(search, place.individuals, new)
    allowed = ROUNDS.allowed_errors * error + ascent.error
    if gain >= ROUNDS.min_kept * ascent.gain - allowed:
        is_idle = place.individuals.num_draws == schedule.num_draws
        is_idle = is_idle and gain < ROUNDS.idle_errors * error
        progress = progress._replace(
            place=place_of(search, ascent.optimum.vector, new),
            region=region.after(gain, ascent.gain),
            num_idle=progress.num_idle + 1 if is_idle else 0,
            last_gain=ascent.gain if isinstance(new, SummarizedDraws) else 0.0,
        )
        if progress.is_idle:  # what a round promises is not there, and smaller steps promise less
            progress = progress._replace(region=region.narrower() or region)
        return progress
    if place.individuals.num_draws < new.num_draws:  # perhaps because these are few draws
        known = place.individuals.refinement
        more = search.draw_for_round(place.vector, new.num_draws, generator, known)
        return progress._replace(place=place_of(search, place.vector, more))
    narrower = region.narrower()
    return None if narrower is None else progress._replace(region=narrower)


def _with_all_draws(
    search: Search, place: DrawnPopulation, schedule: RoundSchedule, generator: Generator
) -> DrawnPopulation:
    """A place where the rounds end, with draws of which all are kept."""
    old = place.individuals
    if schedule.rough or not isinstance(old, SummarizedDraws):
        return place
    parts = (place.vector, old.num_draws, generator, old.refinement)
    return place._replace(individuals=search.draw_for_round(*parts, FULL_EFFORT))


def _stopped(
    search: Search, ascent: Ascent, place: DrawnPopulation, num_rounds: int, min_gain: float
) -> Rounds:
    """The rounds end where the last one began, because it was not confirmed by new draws."""
    message = "new draws do not confirm the gain of the last round"
    optimum = ascent.optimum._replace(vector=place.vector, converged=False, message=message)
    ascent = ascent._replace(optimum=optimum)
    return Rounds(search, ascent, place.individuals, num_rounds, min_gain)
