"""Standard deviations that cannot be distinguished from zero where the rounds have come to, and
have their maximum elsewhere.
"""

import math

import torch
from torch import Generator, Tensor

from ..likelihood.large_cohorts.summarized_draws import SummarizedDraws
from .maximum_search import Search
from .round_progress import DrawnPopulation, RoundProgress, gain_between, place_of
from .round_schedule import RoundSchedule
from .trust_region import ROUNDS
from .vanishing_deviations import at_best_values, prior_deviations


def leave_false_zeros(
    search: Search,
    progress: RoundProgress,
    held: Tensor,
    schedule: RoundSchedule,
    generator: Generator,
) -> tuple[RoundProgress, Tensor]:
    """Jumps to larger standard deviations where the likelihood is higher; the coordinates of those
    that then cannot be distinguished from zero, each at the best of the values near it.
    """
    place = progress.place
    # Far from the maximum, a large residual error hides every standard deviation.
    if schedule.rough or not progress.near:
        return progress, torch.zeros(len(place.vector), dtype=torch.bool)
    vanishing, larger = search.vanishing(place.likelihood, place.vector, held)
    while larger is not None and progress.num_jumps < ROUNDS.max_jumps:
        place = _better_place(search, place, larger, generator)
        progress = progress._replace(place=place, num_jumps=progress.num_jumps + 1, num_idle=0)
        vanishing, larger = search.vanishing(place.likelihood, place.vector, held)
    if bool(vanishing.any()) and not progress.has_looked:
        found = _place_of_prior(search, place, held, vanishing, generator)
        progress = progress._replace(has_looked=True)
        if found is not None:
            place, num_jumps = found, progress.num_jumps + 1
            progress = progress._replace(place=place, num_jumps=num_jumps, num_idle=0)
            vanishing, _ = search.vanishing(place.likelihood, place.vector, held)
    if bool(vanishing.any()):
        place = _at_best_values(search, place, vanishing, generator)
        progress = progress._replace(place=place)
    return progress, vanishing


def _at_best_values(
    search: Search, place: DrawnPopulation, held: Tensor, generator: Generator
) -> DrawnPopulation:
    """The place, or draws with the held standard deviations at better values near theirs."""
    vector, num_draws = place.vector, place.individuals.num_draws
    best = at_best_values(search.structure, search.cohort, place.likelihood, vector, held)
    if torch.equal(best, vector):
        return place
    known = place.individuals.refinement
    return place_of(search, best, search.draw_for_round(best, num_draws, generator, known))


def _better_place(
    search: Search, place: DrawnPopulation, vector: Tensor, generator: Generator
) -> DrawnPopulation:
    """Another population, if the likelihood is higher there on new draws."""
    new = search.draw_for_round(vector, place.individuals.num_draws, generator)
    if search.value_of(new) > search.value_of(place.individuals):
        return place_of(search, vector, new)
    return place


def _place_of_prior(
    search: Search, place: DrawnPopulation, held: Tensor, vanishing: Tensor, generator: Generator
) -> DrawnPopulation | None:
    """A place with a standard deviation as its prior expects it or a part of this, if the
    likelihood is higher on new draws there by more than their Monte Carlo error; or where a short
    round ends that starts at the best of them. None if it is not.
    """
    before = place.individuals
    if isinstance(before, SummarizedDraws):  # of thousands of individuals: their scores show it
        return None
    parts = (search.structure, search.cohort, place.vector, vanishing, search.seed)
    tried, gain, error = None, -math.inf, 0.0
    for at in prior_deviations(*parts):
        drawn = search.draw_for_round(at, before.num_draws, generator)
        found = gain_between(search, before, drawn)
        if found[0] > gain:
            tried, (gain, error) = (at, drawn), found
    if tried is None or gain < -ROUNDS.allowed_errors * error:
        return None
    best = place_of(search, *tried)
    if gain > error:
        return best
    others = vanishing & (best.vector == place.vector)
    ascent = search.ascend(best.likelihood, best.vector, held | others, level=ROUNDS.short_level)
    vector, known = ascent.optimum.vector, ascent.mixtures_at(ascent.optimum.vector)
    new = search.draw_for_round(vector, before.num_draws, generator, known)
    gain, error = gain_between(search, before, new)
    return place_of(search, vector, new) if gain > error else None
