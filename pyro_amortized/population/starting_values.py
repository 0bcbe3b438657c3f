r"""Starting values of a fit, from a few draws of some individuals.

Every start is a population drawn from the prior. The draws of the guide under its shared
parameters, weighted by the model, show in which direction the population lies; a few rounds of
drawing and maximising around there follow (decision 036). The best start on new draws is returned.
"""

import math
from dataclasses import dataclass

from torch import Generator, Tensor

from ..errors import FitError
from ..model import Population
from ..numerics.maximization import Optimum
from ..runtime.random_numbers import fork_seed, make_generator
from ..runtime.workers import run_each
from .maximum_search import Search


@dataclass(frozen=True)
class StartSettings:
    """Effort of the search for starting values."""

    # Individuals that represent a cohort.
    max_individuals: int = 24
    # In a cohort of at least the first number of individuals, the best start is improved with the
    # second number of them before all are drawn.
    large_cohort: int = 4_000
    max_individuals_of_large: int = 1_000
    # Largest move on the draws of the guide, in prior standard deviations: a likelihood on few
    # effective draws is largest at variances near zero (decision 036).
    max_first_move: float = 1.5
    # Rounds of drawing and maximising, and the gain of the log likelihood below which they end.
    max_rounds: int = 4
    min_gain: float = 10.0


START = StartSettings()


def locate_population(
    search: Search,
    *,
    num_starts: int = 4,
    num_draws: int = 200,
    fixed: Population | None = None,
    seed: int | Generator = 0,
) -> Optimum:
    r"""Find the neighbourhood of the best population from a few draws.

    A large cohort is represented by individuals chosen at random; in a very large one, the best
    start is then improved with more of them. Under ``joblib.parallel_config`` the starts run in
    parallel, with the same result.

    Args:
        search: The search; the same one is then used for the fit.
        num_starts: Number of starts; the best on new draws is returned.
        num_draws: Draws per individual.
        fixed: Values of sites that are held.
        seed: Seed or generator.

    Returns:
        The best population in unconstrained coordinates, with the objective on new draws.

    Raises:
        FitError: No start leads to a finite likelihood.
    """
    generator, structure = make_generator(seed), search.structure
    part = search.part(START.max_individuals, generator)
    starts = structure.draw_populations(part.cohort, num_starts, generator)
    held = structure.coordinates(fixed or {})
    arguments = [
        (
            part,
            structure.unconstrain_population(start | dict(fixed or {})),
            held,
            num_draws,
            fork_seed(generator),
        )
        for start in starts
    ]
    optima: list[Optimum] = run_each(improve_start, arguments)
    best = max(optima, key=lambda optimum: optimum.value)
    if len(search.cohort) >= START.large_cohort and math.isfinite(best.value):
        part = search.part(START.max_individuals_of_large, generator)
        best = improve_start(part, best.vector, held, num_draws, fork_seed(generator))
    if not math.isfinite(best.value):
        raise FitError(
            f"None of {num_starts} starts has a finite likelihood.",
            "data that the model can produce under its prior.",
            "check units and priors, and `plots.individual_fits`; or pass `start=`.",
        )
    return best


def improve_start(
    search: Search, vector: Tensor, held: Tensor, num_draws: int, seed: int
) -> Optimum:
    r"""Rounds of drawing and maximising; the objective of the result is computed on new draws.

    Args:
        search: The search, with the individuals that are used.
        vector: The start in unconstrained coordinates, shape ``(population,)``.
        held: Coordinates that are held, same shape.
        num_draws: Draws per individual.
        seed: Seed of the draws.
    """
    generator, individuals = make_generator(seed), None
    # Far from the data, the draws of the guide without refinement show the direction well enough.
    raw = search.draw(vector, num_draws, generator, refine=False)
    optimum = search.ascend(raw, vector, held, rough=True).optimum
    if math.isfinite(optimum.value):
        move = (optimum.vector - vector) / search.scale
        limit = START.max_first_move
        vector = vector + move.clamp(-limit, limit) * search.scale
    for _ in range(START.max_rounds):
        individuals = search.draw(vector, num_draws, generator, individuals)
        ascent = search.ascend(individuals, vector, held, rough=True)
        optimum = ascent.optimum
        if not math.isfinite(optimum.value):
            return optimum
        vector = optimum.vector
        if ascent.gain < START.min_gain:
            break
    new = search.draw(vector, num_draws, generator, individuals)
    value = float(new.estimate.log_mean.sum())
    value += float(search.log_prior(search.structure.constrain_population(vector), vector))
    return optimum._replace(value=value if math.isfinite(value) else -math.inf)
