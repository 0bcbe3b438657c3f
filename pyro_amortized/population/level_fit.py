r"""Maximum likelihood with a level above the individuals (studies, sites, families).

Rounds alternate as in a fit without a level: draws of the individuals at the present parameters and
modes of the effects, then the maximum of the likelihood of the units on these draws
(:mod:`pyro_amortized.population.levels.level_likelihood`).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import FitError
from ..model import Model, ModelStructure, Population, read_structure
from ..numerics.laplace import difference_steps, laplace_covariance
from ..numerics.maximization import maximize
from ..runtime.arguments import check_count
from ..runtime.random_numbers import make_generator
from ..sampling.individuals import MIN_DRAWS
from .estimation import FitRequest, fit_once
from .levels.level_likelihood import LevelLikelihood, drawn_level_likelihood
from .levels.level_result import LevelFit
from .levels.level_sites import Level, the_level
from .results.fit_message import rounds_in_words


@dataclass(frozen=True)
class LevelFitSettings:
    r"""When the rounds end.

    Args:
        max_rounds: Most rounds.
        gain: Gain in log likelihood of a round below which the fit has converged.
        max_iterations: Iterations of a round. The nodes of the quadrature stay where they are in a
            round, so that many iterations in one round lead away from them.
        first_draws: Draws of each individual in the first round, which the next ones improve.
        num_prior: Populations of the prior whose median is the start of what only the effects
            depend on.
    """

    max_rounds: int = 12
    gain: float = 0.02
    max_iterations: int = 15
    first_draws: int = 150
    num_prior: int = 100


SETTINGS = LevelFitSettings()


def fit_levels(
    model: Model,
    cohort: Cohort,
    *,
    start: Population | None = None,
    fixed: Population | None = None,
    num_draws: int = 500,
    seed: int = 0,
) -> LevelFit:
    r"""Fit a model whose individuals are nested in the units of one level (studies, sites).

    The effects of the level are population sites inside one plate, whose name is free; the
    individuals read them by a covariate::

        with pyro.plate("site", 8):
            effect = pyro.sample("effect", dist.Normal(0.0, between))
        site = cohort.covariates["site"].long()
        with pyro.plate("individual", len(cohort)):
            phi = pyro.sample("phi", dist.Normal(typical + effect[..., site], omega))

    Individuals are integrated out by importance sampling, units by adaptive Gauss-Hermite
    quadrature.

    Args:
        model: The model.
        cohort: The data.
        start: Population to start from, with the effects. Default: a fit without effects.
        fixed: Values of population sites that are not estimated.
        num_draws: Draws of each individual.
        seed: Seed of all draws.

    Returns:
        The fit.

    Raises:
        FitError: The model has no such level, or several; effects are crossed, or more than three
            for each unit; effects or all parameters are fixed.
        ModelError: As :func:`~pyro_amortized.read_structure`.
    """
    check_count("num_draws", num_draws, least=MIN_DRAWS, error=FitError)
    begin, generator = time.perf_counter(), make_generator(seed)
    structure = read_structure(model, cohort)
    structure.check_density()
    level = the_level(structure, cohort)
    held = _held(structure, level, fixed)
    vector = _start(structure, cohort, level, start, held, seed)
    own = ~structure.coordinates((*level.sites, *held))
    scale = structure.population_scale(cohort, generator)
    gain, rounds = math.inf, 0
    while rounds < SETTINGS.max_rounds and (gain > SETTINGS.gain or rounds < 2):
        num = num_draws if rounds else min(num_draws, SETTINGS.first_draws)
        parts = (structure, cohort, level, vector, num, generator)
        target = drawn_level_likelihood(*parts, is_first=rounds == 0)
        vector, gain = _improved(target, level, vector, own, scale)
        rounds += 1
    target = drawn_level_likelihood(structure, cohort, level, vector, num_draws, generator)
    found, words = _result(target, vector, own, scale)
    message = f"{rounds_in_words(rounds)}; the last gained {gain:.3f} in log likelihood{words}"
    return replace(
        found,
        fixed=tuple(held),
        num_draws=num_draws,
        drawn=target,
        converged=gain <= SETTINGS.gain,
        message=message,
        num_rounds=rounds,
        seconds=time.perf_counter() - begin,
    )


def _improved(
    target: LevelLikelihood, level: Level, vector: Tensor, own: Tensor, scale: Tensor
) -> tuple[Tensor, float]:
    """The maximum on the draws of a round over the free parameters, and what it has gained."""
    vector = vector.index_put((level.places.flatten(),), target.center.flatten())
    objective = _objective(target, vector, own)
    before = float(objective(vector[own]).detach())
    most = SETTINGS.max_iterations
    best = maximize(objective, vector[own], scale=scale[own], max_iterations=most)
    return vector.index_put((own.nonzero()[:, 0],), best.vector), best.value - before


def _held(structure: ModelStructure, level: Level, fixed: Population | None) -> dict[str, Tensor]:
    """Values of the sites that are not estimated."""
    held = dict(structure.check_values(fixed or {}))
    inside = [name for name in held if name in level.sites]
    if inside or len(held) == len(structure.population) - len(level.sites):
        raise FitError(
            f"`fixed` is {sorted(held)}; the effects of the level {level.plate!r} are "
            f"{list(level.sites)}.",
            "some, but not all of the other population parameters.",
            "leave the effects out; a model whose effects are known is fitted by "
            "`fit_population(..., fixed=)`.",
        )
    return held


def _start(
    structure: ModelStructure,
    cohort: Cohort,
    level: Level,
    start: Population | None,
    fixed: dict[str, Tensor],
    seed: int,
) -> Tensor:
    """The first vector: a fit in which all units are equal, and the median of the prior for what
    only the effects depend on.
    """
    if start is not None:
        return structure.unconstrain_population(structure.check_population(dict(start) | fixed))
    draws = structure.draw_populations(cohort, SETTINGS.num_prior, make_generator(seed))
    vectors = torch.stack([structure.unconstrain_population(p) for p in draws])
    median = structure.constrain_population(vectors.median(0).values)
    zero = {name: torch.zeros_like(median[name]) for name in level.sites}
    held = {n: median[n] for n in _hyperparameters(structure, cohort, level, draws[:2])}
    held = zero | held | fixed
    if len(held) == len(structure.population):
        return structure.unconstrain_population(held)
    return fit_once(structure.model, cohort, FitRequest(held, seed=seed)).vector.clone()


def _hyperparameters(
    structure: ModelStructure, cohort: Cohort, level: Level, draws: list[dict[str, Tensor]]
) -> list[str]:
    """Population sites on which only the density of the effects depends."""
    first, second = draws
    found = []
    one = cohort[:1].to(dtype=torch.float64)
    for name in structure.population:
        if name in level.sites:
            continue
        base = level.log_prior(structure, one, first)
        changed = level.log_prior(structure, one, first | {name: second[name]})
        if not torch.allclose(base, changed):
            found.append(name)
    return found


def _objective(target: LevelLikelihood, vector: Tensor, own: Tensor) -> Callable[[Tensor], Tensor]:
    """The log likelihood as a function of the free coordinates, the others as in a vector."""
    places = own.nonzero()[:, 0]

    def objective(values: Tensor) -> Tensor:
        return target(vector.detach().index_put((places,), values))

    return objective


def _result(
    target: LevelLikelihood,
    vector: Tensor,
    own: Tensor,
    scale: Tensor,
) -> tuple[LevelFit, str]:
    """The fit at the estimates, on new draws, and words about what has no standard error; how the
    rounds ended is not known yet.
    """
    structure, level = target.structure, target.level
    objective = _objective(target, vector, own)
    vanishing = _vanishing(target, vector, own)
    steps = difference_steps(target.likelihood.following.scores[:, own], scale[own])
    curvature = laplace_covariance(objective, vector[own], scale[own], ~vanishing, steps)
    means, deviations = target.effects(vector)
    vector = vector.index_put((level.places.flatten(),), means.flatten()).detach()
    spread = structure.constrain_population(
        vector.index_put((level.places.flatten(),), deviations.flatten())
    )
    covariance = torch.full((len(vector), len(vector)), torch.nan, dtype=vector.dtype)
    covariance[own.unsqueeze(1) & own] = curvature.covariance.flatten()
    population = structure.constrain_population(vector)
    fit = LevelFit(
        structure=structure,
        cohort=target.cohort,
        level=level,
        vector=vector,
        covariance=covariance,
        minus2ll=-2 * float(objective(vector[own]).detach()),
        minus2ll_mc_error=2 * target.mc_error,
        effects={n: population[n] for n in level.sites},
        effect_deviations={n: spread[n] for n in level.sites},
        units=target.units,
    )
    names = [n for n, x in zip(structure.population_names, own.tolist(), strict=True) if x]
    unknown = curvature.covariance.diagonal().isnan()
    words = ""
    for name, is_zero, is_unknown in zip(names, vanishing.tolist(), unknown.tolist(), strict=True):
        why = "half of it has the same likelihood" if is_zero else "the data do not determine it"
        words += f"; {name} has no standard error: {why}" if is_zero or is_unknown else ""
    return fit, words


def _vanishing(target: LevelLikelihood, vector: Tensor, own: Tensor) -> Tensor:
    """Which estimated coordinates are logarithms of standard deviations that cannot be
    distinguished from zero: half of them does not change the likelihood, shape ``(estimated,)``.
    """
    structure = target.structure
    positive = torch.cat(
        [
            torch.full((site.num_unconstrained,), "GreaterThan" in str(site.support))
            for site in structure.population.values()
        ]
    )[own]
    objective, at = _objective(target, vector, own), vector[own]
    found = torch.zeros(len(at), dtype=torch.bool)
    with torch.no_grad():
        here = float(objective(at))
        for k in positive.nonzero()[:, 0].tolist():
            step = torch.zeros_like(at)
            step[k] = math.log(2)
            lost, more = here - float(objective(at - step)), float(objective(at + step)) - here
            found[k] = lost < SETTINGS.gain and more < SETTINGS.gain
    return found
