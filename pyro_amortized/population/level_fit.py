r"""Maximum likelihood with a level above the individuals (studies, sites, families).

Rounds alternate as in a fit without a level: draws of the individuals at the present parameters and
modes of the effects, then the maximum of the likelihood of the units on these draws
(:mod:`pyro_amortized.population.level_likelihood`).
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import FitError
from ..model import Model, ModelStructure, Population, read_structure
from ..numerics.laplace import delta_method, laplace_covariance
from ..numerics.maximization import maximize
from ..runtime.arguments import check_count
from ..runtime.random_numbers import make_generator
from ..runtime.text_table import text_table
from ..sampling.individuals import MIN_DRAWS, sample_with_structure
from .estimation import fit_once
from .exact_likelihood import ExactLikelihood
from .fitted_following import follow
from .level_likelihood import LevelLikelihood
from .level_sites import Level, the_level


@dataclass(frozen=True)
class LevelFitSettings:
    r"""When the rounds end.

    Args:
        max_rounds: Most rounds.
        gain: Gain in log likelihood of a round below which the fit has converged.
        max_iterations: Iterations of a round. The nodes of the quadrature stay where they are in a
            round, so that many iterations in one round lead away from them.
    """

    max_rounds: int = 12
    gain: float = 0.02
    max_iterations: int = 15


SETTINGS = LevelFitSettings()


@dataclass(frozen=True, eq=False)
class LevelFit:
    r"""A fit with a level above the individuals. Made by :func:`fit_levels`.

    Args:
        structure: The structure of the model.
        cohort: The data.
        level: The level.
        estimates: Population parameters by name, without the effects of the level.
        standard_errors: Their standard errors, by name.
        covariance: Covariance of the unconstrained estimates, shape ``(parameter, parameter)``.
        names: Names of the unconstrained coordinates.
        minus2ll: -2 log likelihood.
        minus2ll_mc_error: Its Monte Carlo standard error.
        effects: Posterior means of the effects by site, shape of the site.
        effect_deviations: Their posterior standard deviations, likewise.
        units: Unit of each individual, shape ``(individual,)``; -1 for none.
        converged: Whether the rounds ended by themselves.
        message: How they ended.
        num_rounds: Number of rounds.
        seconds: Duration.
    """

    structure: ModelStructure
    cohort: Cohort
    level: Level
    estimates: Mapping[str, Tensor]
    standard_errors: Mapping[str, Tensor]
    covariance: Tensor
    names: tuple[str, ...]
    minus2ll: float
    minus2ll_mc_error: float
    effects: Mapping[str, Tensor]
    effect_deviations: Mapping[str, Tensor]
    units: Tensor
    converged: bool
    message: str
    num_rounds: int
    seconds: float

    @property
    def num_parameters(self) -> int:
        """Number of estimated parameters."""
        return len(self.names)

    @property
    def aic(self) -> float:
        """Akaike's information criterion, -2LL + 2 P."""
        return self.minus2ll + 2 * self.num_parameters

    @property
    def population(self) -> dict[str, Tensor]:
        """Estimates, and posterior means of the effects, of all population sites."""
        return {
            name: (self.estimates | self.effects)[name]  # type: ignore[operator]
            for name in self.structure.population
        }

    def summary(self) -> str:
        """Estimates, standard errors, and effects of the units as text."""
        rows: list[tuple[str, ...]] = [("parameter", "estimate", "SE")]
        for name, value in self.estimates.items():
            labels = self.structure.population[name].entry_names
            errors = self.standard_errors[name].reshape(-1).tolist()
            for label, x, se in zip(labels, value.reshape(-1).tolist(), errors, strict=True):
                rows.append((label, f"{x:.4f}", f"{se:.4f}"))
        units: list[tuple[str, ...]] = [(self.level.plate, "posterior mean", "SD")]
        for name, value in self.effects.items():
            labels = self.structure.population[name].entry_names
            sd = self.effect_deviations[name].reshape(-1).tolist()
            for label, x, s in zip(labels, value.reshape(-1).tolist(), sd, strict=True):
                units.append((label, f"{x:.4f}", f"{s:.4f}"))
        title = (
            f"maximum likelihood, {len(self.cohort)} individuals in {self.level.num_units} units "
            f"of {self.level.plate!r}"
        )
        words = f"{'' if self.converged else 'NOT '}converged: {self.message}"
        fit = (
            f"-2LL {self.minus2ll:.3f} (MC error {self.minus2ll_mc_error:.3f}), AIC {self.aic:.3f}"
        )
        return "\n\n".join([title, words, text_table(rows), fit, text_table(units)])


def fit_levels(
    model: Model,
    cohort: Cohort,
    *,
    start: Population | None = None,
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
        num_draws: Draws of each individual.
        seed: Seed of all draws.

    Returns:
        The fit.

    Raises:
        FitError: The model has no such level, or several; effects are crossed, or more than three
            for each unit.
        ModelError: As :func:`~pyro_amortized.read_structure`.
    """
    check_count("num_draws", num_draws, least=MIN_DRAWS, error=FitError)
    begin, generator = time.perf_counter(), make_generator(seed)
    structure = read_structure(model, cohort)
    structure.check_density()
    level = the_level(structure, cohort)
    vector = _start(structure, cohort, level, start, seed)
    own = torch.ones(len(vector), dtype=torch.bool)
    own[level.places.flatten()] = False
    scale = structure.population_scale(cohort, generator)
    gain, rounds, target = math.inf, 0, None
    while rounds < SETTINGS.max_rounds and (gain > SETTINGS.gain or rounds < 2):
        target = _likelihood(structure, cohort, level, vector, num_draws, generator)
        vector = vector.index_put((level.places.flatten(),), target.center.flatten())
        objective = _objective(target, vector, own)
        before = float(objective(vector[own]).detach())
        best = maximize(
            objective, vector[own], scale=scale[own], max_iterations=SETTINGS.max_iterations
        )
        gain, rounds = best.value - before, rounds + 1
        vector = vector.index_put((own.nonzero()[:, 0],), best.vector)
    target = _likelihood(structure, cohort, level, vector, num_draws, generator)
    converged = gain <= SETTINGS.gain
    message = f"{rounds} rounds of draws; the last gained {gain:.3f} in log likelihood"
    found = _result(target, vector, own, scale)
    return replace(
        found,
        converged=converged,
        message=message,
        num_rounds=rounds,
        seconds=time.perf_counter() - begin,
    )


def _start(
    structure: ModelStructure, cohort: Cohort, level: Level, start: Population | None, seed: int
) -> Tensor:
    """The first vector: a fit in which all units are equal, and the median of the prior for what
    only the effects depend on.
    """
    if start is not None:
        return structure.unconstrain_population(structure.check_population(start))
    draws = structure.draw_populations(cohort, 100, make_generator(seed))
    vectors = torch.stack([structure.unconstrain_population(p) for p in draws])
    median = structure.constrain_population(vectors.median(0).values)
    zero = {name: torch.zeros_like(median[name]) for name in level.sites}
    held = {n: median[n] for n in _hyperparameters(structure, cohort, level, draws[:2])}
    fit = fit_once(structure.model, cohort, fixed=zero | held, seed=seed)
    return fit.vector.clone()


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


def _likelihood(
    structure: ModelStructure,
    cohort: Cohort,
    level: Level,
    vector: Tensor,
    num_draws: int,
    generator: Generator,
) -> LevelLikelihood:
    """The likelihood of the units on new draws at a population."""
    population = structure.constrain_population(vector)
    individuals = sample_with_structure(
        structure, None, cohort, population, num_draws=num_draws, seed=generator
    )
    following = follow(individuals, structure.population_scale(individuals.cohort, generator))
    likelihood = ExactLikelihood(individuals, following)
    return LevelLikelihood(likelihood, structure, cohort, level, vector)


def _objective(target: LevelLikelihood, vector: Tensor, own: Tensor) -> Any:
    places = own.nonzero()[:, 0]

    def objective(values: Tensor) -> Tensor:
        return target(vector.detach().index_put((places,), values))

    return objective


def _result(
    target: LevelLikelihood,
    vector: Tensor,
    own: Tensor,
    scale: Tensor,
) -> LevelFit:
    """The fit at the estimates, on new draws; how the rounds ended is not known yet."""
    structure, level = target.structure, target.level
    objective = _objective(target, vector, own)
    curvature = laplace_covariance(objective, vector[own], scale[own])
    names = tuple(n for n, x in zip(structure.population_names, own.tolist(), strict=True) if x)
    plain = [n for n in structure.population if n not in level.sites]
    estimates, errors = {}, {}
    places = own.nonzero()[:, 0]
    for name in plain:

        def value(z: Tensor, name: str = name) -> Tensor:
            full = vector.detach().index_put((places,), z)
            return structure.constrain_population(full)[name]

        estimates[name], errors[name] = delta_method(value, vector[own], curvature.covariance)
    means, deviations = target.effects(vector)
    found, spread = [
        structure.constrain_population(vector.index_put((level.places.flatten(),), x.flatten()))
        for x in (means, deviations)
    ]
    return LevelFit(
        structure,
        target.cohort,
        level,
        estimates,
        errors,
        curvature.covariance,
        names,
        -2 * float(objective(vector[own]).detach()),
        2 * target.mc_error,
        {n: found[n] for n in level.sites},
        {n: spread[n] for n in level.sites},
        target.units,
        False,
        "",
        0,
        0.0,
    )
