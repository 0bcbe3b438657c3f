r"""Rounds of drawing and maximising, in which the draws follow the population.

.. math:: \Psi^{(r+1)} = \arg\max_\Psi \sum_i \log \hat p_r(y_i \mid \Psi),

where the draws of round r were made at :math:`\Psi^{(r)}`, within limits. New draws at the result
show whether the likelihood has risen as promised. If not, the round is repeated with tighter
limits (a trust region). The rounds end when new draws have nothing to gain.

References:
    Conn, Gould, Toint (2000), Trust Region Methods.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..runtime.progress import count_step
from ..sampling.individuals import IndividualPosteriors
from ..sampling.proposals import Refinement
from ..sampling.refinement_settings import FULL_EFFORT, NO_CHAINS, ROUGH_EFFORT, Effort
from .estimate_errors import draws_needed
from .impossible_data import check_possible, impossible_rows
from .likelihood_interface import Likelihood
from .maximum_search import SEARCH, Ascent, Search


@dataclass(frozen=True)
class RoundSettings:
    """When a round has kept its promise."""

    # Parts of the promised gain: if the likelihood on new draws shows less, the round is repeated
    # with tighter limits; if it shows more than the second in several rounds, the next one has
    # wider ones, unless these have failed before. The Monte Carlo error of the gain is allowed for
    # by this multiple, that of the promise once.
    min_kept: float = 0.25
    well_kept: float = 0.75
    num_well_kept: int = 2
    # Rounds in sequence, with all draws, in which the likelihood on new draws did not rise by more
    # than this multiple of its Monte Carlo error: the rounds then end. Where the likelihood is
    # nearly flat in a direction, what the draws of a round promise there is their own error.
    num_idle: int = 2
    idle_errors: float = 2.0
    # A round that promises more is not the last one, whatever the rounds before it have gained.
    max_idle_promise: float = 1.0
    # Multiple of the gain that Monte Carlo error alone promises, below which the rounds of a large
    # cohort end: with eleven parameters its standard deviation is 0.4 of it.
    expected_noise: float = 1.5
    # Gain of a round from which the Monte Carlo errors of the estimates say how many draws they
    # need: their errors should be smaller than this part of their standard errors. A smaller
    # increase is not worth further rounds, and a larger one may be due to a few individuals.
    settled_gain: float = 1.0
    max_estimate_error: float = 0.02
    min_increase: float = 1.3
    max_increase: int = 3
    # Jumps to a much larger standard deviation, from where the likelihood is flat near zero.
    max_jumps: int = 3
    allowed_errors: float = 3.0


ROUNDS = RoundSettings()


class Schedule(NamedTuple):
    r"""Effort of the rounds.

    Args:
        first_draws: Draws per individual of the first rounds.
        num_draws: Draws per individual of the later ones, and of the result.
        near_gain: Gain of a round below which the next one uses all draws.
        min_gain: Gain of a round with all draws below which the rounds end.
        min_gain_stretched: The same where the draws of all individuals are stretched.
        max_rounds: Largest number of rounds.
        rough: Whether little accuracy is enough.
        search_modes: Whether modes are searched for before the result.
        most_draws: Draws per individual up to which more are made where the Monte Carlo errors of
            the estimates need them.
    """

    first_draws: int
    num_draws: int
    near_gain: float
    min_gain: float
    min_gain_stretched: float
    max_rounds: int
    rough: bool = False
    search_modes: bool = True
    most_draws: int = 0

    def effort(self, near: bool, is_result: bool = False) -> Effort:
        """What is done for individuals whose weights are poor, near the maximum or not."""
        if is_result:
            return FULL_EFFORT
        if self.rough or not near:
            return ROUGH_EFFORT
        return NO_CHAINS._replace(search_modes=self.search_modes)

    def with_enough_draws(self, search: Search, ascent: Ascent) -> "Schedule":
        """More draws, if the Monte Carlo errors of the estimates near the maximum need them,
        which a round with all draws shows that has settled.
        """
        num_draws = ascent.likelihood.individuals.num_draws
        if ascent.gain > ROUNDS.settled_gain or not self.num_draws <= num_draws < self.most_draws:
            return self
        needed = min(self.most_draws, draws_needed(search, ascent, ROUNDS.max_estimate_error))
        if needed < ROUNDS.min_increase * num_draws:
            return self._replace(most_draws=0)
        limit = ROUNDS.max_increase * num_draws
        if needed <= limit:
            return self._replace(num_draws=needed, most_draws=0)
        return self._replace(num_draws=limit)

    def smallest_gain(self, likelihood: Likelihood, num_idle: int) -> float:
        """Gain of a round on these draws below which the rounds end."""
        share = likelihood.following.share_stretched
        least = self.min_gain + share * (self.min_gain_stretched - self.min_gain)
        if num_idle >= ROUNDS.num_idle:
            least = max(least, ROUNDS.max_idle_promise)
        return max(least, ROUNDS.expected_noise * likelihood.noise)


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
    individuals: IndividualPosteriors
    num_rounds: int
    min_gain: float

    @property
    def value(self) -> float:
        """The objective on the new draws, -inf where it is not finite."""
        value = self.search.value_of(self.individuals)
        return value if math.isfinite(value) else -math.inf


class Place(NamedTuple):
    """A population in unconstrained coordinates, draws that were made there, and the likelihood on
    these draws.
    """

    vector: Tensor
    individuals: IndividualPosteriors
    likelihood: Likelihood


class TrustRegion(NamedTuple):
    """Which limits a round has, the widest that have not failed, and the number of rounds in
    sequence that kept their promise well.
    """

    level: int = SEARCH.first_level
    least: int = 0
    num_kept: int = 0

    def narrower(self) -> "TrustRegion | None":
        """After a round that did not keep its promise; None if there are no tighter limits."""
        if self.level == len(SEARCH.max_distances) - 1:
            return None
        return TrustRegion(self.level + 1, self.level + 1)

    def after(self, gain: float, promised: float) -> "TrustRegion":
        """After a round that kept its promise."""
        num_kept = self.num_kept + 1 if gain > ROUNDS.well_kept * promised else 0
        if num_kept < ROUNDS.num_well_kept:
            return self._replace(num_kept=num_kept)
        return TrustRegion(max(self.least, self.level - 1), self.least)


class Progress(NamedTuple):
    r"""Where the rounds have come to.

    Args:
        place: The population, and draws that were made there.
        near: Whether the maximum is near: the rounds then use all draws.
        region: Limits of the next round.
        num_rounds: Number of rounds.
        num_jumps: Number of jumps to a larger standard deviation.
        num_idle: Number of rounds in sequence in which the likelihood on new draws did not rise.
    """

    place: Place
    near: bool
    region: TrustRegion = TrustRegion()
    num_rounds: int = 0
    num_jumps: int = 0
    num_idle: int = 0


class Start(NamedTuple):
    """An unconstrained population, and mixtures of the individuals to try first, or None."""

    vector: Tensor
    known: Refinement | None = None


def run_rounds(
    search: Search, start: Start, held: Tensor, schedule: Schedule, generator: Generator
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
    first = min(schedule.first_draws, schedule.num_draws)
    progress = _start(search, start, first, schedule, generator)
    while True:
        progress, vanishing = _leave_false_zeros(search, progress, schedule, generator)
        place, near = progress.place, progress.near
        level, rough = progress.region.level, schedule.rough or not near
        ascent = search.ascend(place.likelihood, place.vector, held | vanishing, rough, level)
        num_rounds = progress.num_rounds + 1
        count_step(f"log likelihood {ascent.optimum.value:.1f}")
        schedule = schedule.with_enough_draws(search, ascent)
        min_gain = schedule.smallest_gain(place.likelihood, progress.num_idle)
        if not math.isfinite(ascent.gain):
            return Rounds(search, ascent, place.individuals, num_rounds, min_gain)
        enough = near and place.individuals.num_draws >= schedule.num_draws
        done = (enough and ascent.gain < min_gain) or num_rounds == schedule.max_rounds
        near = near or ascent.gain < schedule.near_gain
        num_draws = schedule.num_draws if near else first
        effort = schedule.effort(near, is_result=done and not schedule.rough)
        vector = ascent.optimum.vector
        new = search.draw(vector, num_draws, generator, ascent.mixtures_at(vector), effort)
        if done:
            return Rounds(search, ascent, new, num_rounds, min_gain)
        progress = progress._replace(near=near, num_rounds=num_rounds)
        after = _after_round(search, progress, ascent, new, schedule, generator)
        if after is None:
            return _stopped(search, ascent, place, num_rounds, min_gain)
        progress = after


def _start(
    search: Search, start: Start, num_draws: int, schedule: Schedule, generator: Generator
) -> Progress:
    """The first population, if all data are possible there."""
    near = num_draws == schedule.num_draws
    effort = schedule.effort(near)
    individuals = search.draw(start.vector, num_draws, generator, start.known, effort)
    if len(impossible_rows(individuals)):  # perhaps because their mode was missed
        known, effort = individuals.refinement, effort._replace(search_modes=True)
        individuals = search.draw(start.vector, num_draws, generator, known, effort)
    check_possible(individuals)
    return Progress(_place(search, start.vector, individuals), near)


def _leave_false_zeros(
    search: Search, progress: Progress, schedule: Schedule, generator: Generator
) -> tuple[Progress, Tensor]:
    """Jumps to larger standard deviations where the likelihood is higher; the coordinates of those
    that then cannot be distinguished from zero.
    """
    place = progress.place
    # Far from the maximum, a large residual error hides every standard deviation.
    if schedule.rough or not progress.near:
        return progress, torch.zeros(len(place.vector), dtype=torch.bool)
    vanishing, larger = search.vanishing(place.likelihood, place.vector)
    while larger is not None and progress.num_jumps < ROUNDS.max_jumps:
        place = _better_place(search, place, larger, generator)
        progress = progress._replace(place=place, num_jumps=progress.num_jumps + 1, num_idle=0)
        vanishing, larger = search.vanishing(place.likelihood, place.vector)
    return progress, vanishing


def _after_round(
    search: Search,
    progress: Progress,
    ascent: Ascent,
    new: IndividualPosteriors,
    schedule: Schedule,
    generator: Generator,
) -> Progress | None:
    """The next place, or the same with more draws or tighter limits; None if there are none."""
    place, region = progress.place, progress.region
    gain, error = _gain(search, place.individuals, new)
    allowed = ROUNDS.allowed_errors * error + ascent.error
    if gain >= ROUNDS.min_kept * ascent.gain - allowed:
        is_idle = place.individuals.num_draws == schedule.num_draws
        is_idle = is_idle and gain < ROUNDS.idle_errors * error
        return progress._replace(
            place=_place(search, ascent.optimum.vector, new),
            region=region.after(gain, ascent.gain),
            num_idle=progress.num_idle + 1 if is_idle else 0,
        )
    if place.individuals.num_draws < new.num_draws:  # perhaps because these are few draws
        more = search.draw_again(place.individuals, new.num_draws, generator)
        return progress._replace(place=_place(search, place.vector, more))
    narrower = region.narrower()
    return None if narrower is None else progress._replace(region=narrower)


def _place(search: Search, vector: Tensor, individuals: IndividualPosteriors) -> Place:
    return Place(vector, individuals, search.likelihood(individuals))


def _better_place(search: Search, place: Place, vector: Tensor, generator: Generator) -> Place:
    """Another population, if the likelihood is higher there on new draws."""
    new = search.draw(vector, place.individuals.num_draws, generator)
    if search.value_of(new) > search.value_of(place.individuals):
        return _place(search, vector, new)
    return place


def _stopped(
    search: Search, ascent: Ascent, place: Place, num_rounds: int, min_gain: float
) -> Rounds:
    """The rounds end where the last one began, because it was not confirmed by new draws."""
    message = "new draws do not confirm the gain of the last round"
    optimum = ascent.optimum._replace(vector=place.vector, converged=False, message=message)
    ascent = ascent._replace(optimum=optimum)
    return Rounds(search, ascent, place.individuals, num_rounds, min_gain)


def _gain(
    search: Search, before: IndividualPosteriors, after: IndividualPosteriors
) -> tuple[float, float]:
    """Gain of the objective from some draws to others, and its Monte Carlo error."""
    gain = search.value_of(after) - search.value_of(before)
    errors = [float(x.marginal_estimate.mc_error.pow(2).sum()) for x in (before, after)]
    return gain, math.sqrt(sum(errors))
