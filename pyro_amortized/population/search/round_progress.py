"""Where the rounds of a fit have come to."""

import math
from typing import NamedTuple

from torch import Tensor

from ..likelihood.large_cohorts.summarized_draws import RoundDraws
from ..likelihood.likelihood_interface import Likelihood
from .maximum_search import Ascent, Search
from .round_schedule import RoundSchedule
from .trust_region import ROUNDS, TrustRegion


class DrawnPopulation(NamedTuple):
    """A population in unconstrained coordinates, draws that were made there, and the likelihood on
    these draws.
    """

    vector: Tensor
    individuals: RoundDraws
    likelihood: Likelihood


class RoundProgress(NamedTuple):
    r"""Where the rounds have come to.

    Args:
        place: The population, and draws that were made there.
        near: Whether the maximum is near: the rounds then use all draws.
        region: Limits of the next round.
        num_rounds: Number of rounds.
        num_jumps: Number of jumps to a larger standard deviation.
        has_looked: Whether larger values of the standard deviations that cannot be distinguished
            from zero were tried on new draws.
        num_idle: Number of rounds in sequence in which the likelihood on new draws did not rise.
        last_gain: Gain of the last round of a large cohort; 0 before it, and for other cohorts.
        num_draws: Draws of the later rounds, if they are not those of the schedule, else 0.
        most_draws: Up to how many they may become, likewise.
    """

    place: DrawnPopulation
    near: bool
    region: TrustRegion = TrustRegion()
    num_rounds: int = 0
    num_jumps: int = 0
    has_looked: bool = False
    num_idle: int = 0
    last_gain: float = 0.0
    num_draws: int = 0
    most_draws: int = 0

    def resumed(self, schedule: RoundSchedule) -> RoundSchedule:
        """The schedule with the numbers of draws that the rounds have come to."""
        if not self.num_draws:
            return schedule
        return schedule._replace(num_draws=self.num_draws, most_draws=self.most_draws)

    def with_draws_of(self, schedule: RoundSchedule) -> "RoundProgress":
        """The same with the numbers of draws of a schedule."""
        return self._replace(num_draws=schedule.num_draws, most_draws=schedule.most_draws)

    @property
    def is_idle(self) -> bool:
        """Whether the likelihood has not risen on new draws for some rounds."""
        return self.num_idle >= ROUNDS.num_idle

    def gains_little(self, gain: float, min_gain: float) -> bool:
        """Whether a round gains little, or the next one would."""
        expected = gain * gain / self.last_gain if self.last_gain else math.inf
        is_near = gain < ROUNDS.max_idle_promise
        return gain < min_gain or (is_near and expected < ROUNDS.min_expected * min_gain)

    def is_last(self, ascent: Ascent, min_gain: float) -> bool:
        """Whether a round ends the rounds: it gains little, and its limits have not withheld more
        from it.
        """
        is_small = self.gains_little(ascent.gain, min_gain)
        return is_small and self.region.withheld(ascent, self.is_idle) < min_gain


def place_of(search: Search, vector: Tensor, individuals: RoundDraws) -> DrawnPopulation:
    """A population, draws that were made there, and the likelihood on them."""
    return DrawnPopulation(vector, individuals, search.likelihood(individuals))


def gain_between(search: Search, before: RoundDraws, after: RoundDraws) -> tuple[float, float]:
    """Gain of the objective from some draws to others, and its Monte Carlo error."""
    gain = search.value_of(after) - search.value_of(before)
    errors = [float(x.marginal_estimate.mc_error.pow(2).sum()) for x in (before, after)]
    return gain, math.sqrt(sum(errors))
