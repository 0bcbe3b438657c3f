r"""Rounds of drawing and maximising, in which the draws follow the population.

.. math:: \Psi^{(r+1)} = \arg\max_\Psi \sum_i \log \hat p_r(y_i \mid \Psi),

where the draws of round r were made at :math:`\Psi^{(r)}`, within limits. New draws at the result
show whether the likelihood has risen as promised. If not, the round is repeated with tighter
limits (a trust region). The rounds end when new draws have nothing to gain.

References:
    Conn, Gould, Toint (2000), Trust Region Methods.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..sampling.control_variates import controlled_estimate
from ..sampling.individuals import IndividualPosteriors
from ..sampling.refinement_settings import FULL_EFFORT, NO_CHAINS, ROUGH_EFFORT, Effort
from .likelihood_estimate import MarginalLikelihood, summarize_weights
from .maximum_search import SEARCH, Ascent, Search


@dataclass(frozen=True)
class RoundSettings:
    """When a round has kept its promise."""

    # Parts of the promised gain: if the likelihood on new draws shows less, the round is repeated
    # with tighter limits; if it shows more than the second, the next round has wider ones. The
    # Monte Carlo error of the gain is allowed for by this multiple.
    min_kept: float = 0.25
    well_kept: float = 0.75
    allowed_errors: float = 3.0
    # Draws for a requested precision: this multiple of what the Monte Carlo error of the first
    # draws says, because it is an estimate; and the largest number of observed values at them,
    # which take some seconds.
    extra_share: float = 1.1
    max_extra_values: int = 30_000_000


ROUNDS = RoundSettings()


class Schedule(NamedTuple):
    r"""Effort of the rounds.

    Args:
        first_draws: Draws per individual of the first rounds.
        num_draws: Draws per individual of the later ones, and of the result.
        near_gain: Gain of a round below which the next one uses all draws.
        min_gain: Gain of a round with all draws below which the rounds end.
        max_rounds: Largest number of rounds.
        rough: Whether little accuracy is enough.
    """

    first_draws: int
    num_draws: int
    near_gain: float
    min_gain: float
    max_rounds: int
    rough: bool = False


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


def run_rounds(
    search: Search, vector: Tensor, held: Tensor, schedule: Schedule, generator: Generator
) -> Rounds:
    r"""Draw and maximise in turn until new draws have nothing to gain.

    Args:
        search: The search.
        vector: The start in unconstrained coordinates, shape ``(population,)``.
        held: Coordinates that are held, same shape.
        schedule: Numbers of draws and rounds.
        generator: Source of randomness.
    """
    first = min(schedule.first_draws, schedule.num_draws)
    near = first == schedule.num_draws
    current = search.draw(vector, first, generator, effort=_effort(schedule.rough or not near))
    last: Ascent | None = None
    num_rounds, level, last_level = 0, 0, len(SEARCH.max_distances) - 1
    while True:
        # Far from the maximum, a large residual error hides every standard deviation.
        rough = schedule.rough or not near
        ascent = search.ascend(current, vector, held, rough, level, last)
        num_rounds += 1
        if not math.isfinite(ascent.gain):
            return Rounds(search, ascent, current, num_rounds, schedule.min_gain)
        done = near and ascent.gain < schedule.min_gain
        done = done or num_rounds == schedule.max_rounds
        near = near or ascent.gain < schedule.near_gain
        num_draws = schedule.num_draws if near else first
        is_result = done and not schedule.rough
        effort = FULL_EFFORT if is_result else _effort(schedule.rough or not near)
        new = search.draw(ascent.optimum.vector, num_draws, generator, ascent, effort)
        if done:
            return Rounds(search, ascent, new, num_rounds, schedule.min_gain)
        gain, allowed = _gain(search, current, new)
        if gain < ROUNDS.min_kept * ascent.gain - allowed:
            if level == last_level:
                return _stopped(search, ascent, vector, current, num_rounds, schedule)
            level += 1
            continue
        current, vector, last = new, ascent.optimum.vector, ascent
        if gain > ROUNDS.well_kept * ascent.gain - allowed:
            level = max(0, level - 1)


def _stopped(
    search: Search,
    ascent: Ascent,
    vector: Tensor,
    current: IndividualPosteriors,
    num_rounds: int,
    schedule: Schedule,
) -> Rounds:
    """The rounds end where the last one began, because it was not confirmed by new draws."""
    message = "new draws do not confirm the gain of the last round"
    optimum = ascent.optimum._replace(vector=vector, converged=False, message=message)
    ascent = ascent._replace(optimum=optimum)
    return Rounds(search, ascent, current, num_rounds, schedule.min_gain)


def _effort(rough: bool) -> Effort:
    return ROUGH_EFFORT if rough else NO_CHAINS


def more_draws(
    search: Search, rounds: Rounds, precision: float, generator: Generator
) -> MarginalLikelihood | None:
    r"""The likelihood at the result with more draws, of which only the likelihood is kept.

    Args:
        search: The search.
        rounds: The rounds.
        precision: Monte Carlo standard error of -2LL.
        generator: Source of randomness.

    Returns:
        The likelihood, or None if the draws of the result are precise enough, or more are not
        affordable.
    """
    individuals = rounds.individuals
    num_draws, marginal = individuals.num_draws, summarize_weights(individuals)
    error = marginal.minus2ll_mc_error
    if not math.isfinite(error) or error <= precision:
        return None
    needed = ROUNDS.extra_share * (error / precision) ** 2 - 1
    names = individuals.structure.series
    num_values = num_draws * sum(individuals.cohort[name].values.numel() for name in names)
    num_blocks = min(math.ceil(needed), ROUNDS.max_extra_values // max(1, num_values))
    if num_blocks == 0:
        return None
    blocks = [individuals]
    for _ in range(num_blocks):
        blocks.append(search.draw_again(individuals, num_draws, generator))
    fields = ("unconstrained", "log_proposal", "log_weights")
    estimate = controlled_estimate(*(torch.cat([getattr(x, n) for x in blocks]) for n in fields))
    return replace(
        marginal,
        log_likelihood=estimate.log_mean,
        mc_error=estimate.mc_error,
        ess=estimate.ess,
        pareto_k=estimate.pareto_k,
        num_draws=num_draws * (num_blocks + 1),
    )


def _gain(
    search: Search, before: IndividualPosteriors, after: IndividualPosteriors
) -> tuple[float, float]:
    """Gain of the objective from some draws to others, and what its Monte Carlo error allows."""
    gain = search.value_of(after) - search.value_of(before)
    errors = [float(x.marginal_estimate.mc_error.pow(2).sum()) for x in (before, after)]
    return gain, ROUNDS.allowed_errors * math.sqrt(sum(errors))
