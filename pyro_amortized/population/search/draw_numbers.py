"""How many draws of each individual the rounds of a fit use, and when they end."""

import math

import torch

from ...cohort import Cohort
from ...model import ModelStructure
from ...runtime.random_numbers import make_generator
from ..following.density_gradients import solves_dynamics
from ..likelihood.likelihood_choice import is_large, is_quadratic, most_draws
from .estimation_settings import ESTIMATION
from .maximum_search import Search
from .round_schedule import RoundSchedule


def default_num_draws(structure: ModelStructure, cohort: Cohort) -> int:
    """Draws per individual in the later rounds of a fit, where the user names no number."""
    settings, num_individuals = ESTIMATION, len(cohort)
    num_draws, most = settings.draws_numerator / math.sqrt(num_individuals), settings.usual_draws
    if structure.estimator == "likelihood-free":
        num_draws, most = settings.learned_factor * num_draws, settings.max_draws
    return round(min(most, max(settings.min_draws, num_draws)))


def result_draws(structure: ModelStructure, cohort: Cohort) -> int:
    """Draws per individual of the result, where these are more than those of the rounds."""
    settings, num_latent = ESTIMATION, len(structure.latent_names)
    if not is_large(structure, cohort):
        return settings.min_result_draws
    wanted = settings.result_draws_per_variate * math.comb(num_latent + 2, 2)
    return min(wanted, settings.usual_draws, settings.max_result_draws // len(cohort))


def with_more_draws(
    schedule: RoundSchedule, structure: ModelStructure, cohort: Cohort
) -> RoundSchedule:
    """A schedule with as many draws as the Monte Carlo errors of estimates and likelihood need."""
    most = 0
    if structure.estimator == "corrected":
        cost = ESTIMATION.cost_of_dynamics if _has_dynamics(structure, cohort) else 1
        affordable = most_draws(structure, cohort, ESTIMATION.max_evaluated // cost)
        most = min(ESTIMATION.max_draws, affordable)
    return schedule._replace(most_draws=most, result_draws=result_draws(structure, cohort))


def _has_dynamics(structure: ModelStructure, cohort: Cohort) -> bool:
    population, generator = structure.initial_population(), make_generator(0)
    with torch.no_grad():
        draws = structure.draw_individuals(cohort, population, 1, generator)
        return solves_dynamics(structure, cohort, draws, population)


def schedule_of(search: Search, num_draws: int, num_parameters: int) -> RoundSchedule:
    """The rounds of a fit with a number of draws, for so many population parameters."""
    settings, num_individuals = ESTIMATION, len(search.cohort)
    is_rough = is_quadratic(search.structure, search.cohort, num_draws)
    min_gain, stretched = (
        settings.min_gain + per_draw * num_parameters / num_draws
        for per_draw in (settings.min_gain_per_draw, settings.min_gain_per_stretched_draw)
    )
    first_draws = max(settings.min_first_draws, int(num_draws * settings.first_rounds_share))
    # With a quadratic likelihood a round with few draws is cheap, and several are needed.
    near_gain = settings.near_gain if is_rough else max(settings.near_gain, num_individuals / 2)
    return RoundSchedule(
        first_draws=first_draws,
        num_draws=num_draws,
        near_gain=near_gain,
        min_gain=min_gain,
        min_gain_stretched=stretched,
        max_rounds=settings.max_rounds,
        search_modes=not is_rough,
    )
