r"""The marginal likelihood of a population, and the collapsed model as a Pyro program.

For draws :math:`u_{ik} \sim q_i` of every individual, which stay as they are while Psi moves,

.. math:: \log \hat p(y \mid \Psi) = \sum_i \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}, c)\; p(u_{ik} \mid \Psi)}{q_i(u_{ik})}

is a smooth function of Psi, and its gradient is exact (Fisher's identity: draws and log q are
constants).
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Generator, Tensor

from .cohort import Cohort
from .errors import AmortizedWarning, FitError
from .guide import AmortizedGuide, structure_for
from .importance import finite_or_zero_weight
from .individual import IndividualPosteriors, sample_individuals
from .isolation import fork_seed, make_generator
from .optimize import Optimum, maximize
from .structure import Model, ModelStructure, Population, collapsed_log_density
from .workers import run_each


@dataclass(frozen=True, eq=False)
class MarginalLikelihood:
    r"""log p(y_i | Psi) of every individual, by importance sampling. Fields have the shape
    ``(individual,)``.

    Args:
        log_likelihood: log p(y_i | Psi), all constants included.
        mc_error: Monte Carlo standard error of ``log_likelihood``.
        ess: Effective sample size.
        pareto_k: Pareto k of the weights; above 0.7 the value is not to be trusted.
        num_draws: Draws per individual.
        method: What the draws of each individual come from.
    """

    log_likelihood: Tensor
    mc_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    num_draws: int
    method: tuple[str, ...]

    @property
    def total(self) -> float:
        """Log p(y | Psi), the sum over the individuals."""
        return float(self.log_likelihood.sum())

    @property
    def total_mc_error(self) -> float:
        """Monte Carlo standard error of :attr:`total`."""
        return float(self.mc_error.pow(2).sum().sqrt())

    @property
    def minus2ll(self) -> float:
        """-2 log p(y | Psi), all constants included (NONMEM's OFV leaves out n_obs log 2 pi)."""
        return -2 * self.total

    @property
    def minus2ll_mc_error(self) -> float:
        """Monte Carlo standard error of :attr:`minus2ll`."""
        return 2 * self.total_mc_error


def summarize_weights(individuals: IndividualPosteriors) -> MarginalLikelihood:
    """The marginal likelihood at the population that the draws are conditioned on."""
    estimate = individuals.estimate
    return MarginalLikelihood(
        estimate.log_mean,
        estimate.mc_error,
        estimate.ess,
        estimate.pareto_k,
        individuals.num_draws,
        individuals.method,
    )


def marginal_likelihood(
    model: Model,
    guide: AmortizedGuide,
    cohort: Cohort,
    population: Population,
    *,
    num_draws: int = 1000,
    seed: int | Generator = 0,
    refine: bool = True,
) -> MarginalLikelihood:
    r"""Log p(y_i | Psi) of every individual at given population parameters.

    Args:
        model: The population model: the guide's program, or another one with the same individual
            sites.
        guide: The trained guide.
        cohort: The data.
        population: Values of all population sites.
        num_draws: Draws per individual.
        seed: Seed or generator.
        refine: Refine individuals whose weights are poor.

    Raises:
        GuideError: The individual sites of the model differ from the guide's.
        ModelError: A population value is missing or outside its support.
    """
    structure = structure_for(guide, model, cohort)
    return summarize_weights(
        sample_individuals(
            guide,
            cohort,
            population=population,
            num_draws=num_draws,
            seed=seed,
            refine=refine,
            structure=structure,
        )
    )


def log_marginal(individuals: IndividualPosteriors, population: Population) -> Tensor:
    r"""Log p(y_i | Psi) at any population from the same draws, differentiable, shape
    ``(individual,)``.

    Args:
        individuals: Draws with their proposal density.
        population: Values of all population sites.
    """
    return _fixed_log_marginal(individuals)(population)


def _fixed_log_marginal(individuals: IndividualPosteriors) -> Callable[[Population], Tensor]:
    density = individuals.structure.fixed_draws(individuals.cohort, individuals.unconstrained)

    def value(population: Population) -> Tensor:
        found = density(population)
        return _log_mean_weight(found.observation + found.individual, individuals.log_proposal)

    return value


def _log_mean_weight(log_target: Tensor, log_proposal: Tensor) -> Tensor:
    log_weights = finite_or_zero_weight(log_target - log_proposal)
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def population_objective(
    individuals: IndividualPosteriors, maximum_a_posteriori: bool
) -> Callable[[Tensor], Tensor]:
    """The log marginal likelihood (and log prior) as a function of the unconstrained population
    vector.
    """
    structure, log_likelihood = individuals.structure, _fixed_log_marginal(individuals)

    def objective(vector: Tensor) -> Tensor:
        population = structure.constrain_population(vector)
        value = log_likelihood(population).sum()
        return (
            value + structure.log_prior(individuals.cohort, population)
            if maximum_a_posteriori
            else value
        )

    return objective


@dataclass(frozen=True, eq=False)
class _Search:
    """What every start of a search has in common."""

    structure: ModelStructure
    guide: AmortizedGuide
    cohort: Cohort
    num_draws: int
    maximum_a_posteriori: bool
    scale: Tensor

    def objective(self, vector: Tensor, generator: Generator) -> Callable[[Tensor], Tensor]:
        """The objective on draws made at a population."""
        with warnings.catch_warnings():  # poor weights are no news on the way
            warnings.simplefilter("ignore", AmortizedWarning)
            individuals = sample_individuals(
                self.guide,
                self.cohort,
                population=self.structure.constrain_population(vector),
                num_draws=self.num_draws,
                seed=generator,
                structure=self.structure,
            )
        return population_objective(individuals, self.maximum_a_posteriori)

    def climb(self, vector: Tensor, seed: int) -> Optimum:
        """Two rounds of drawing and maximising, the end scored on fresh draws."""
        generator = make_generator(seed)
        for _ in range(2):
            objective = self.objective(vector, generator)
            optimum = maximize(objective, vector, scale=self.scale, max_iterations=50)
            if not math.isfinite(optimum.value):
                return optimum
            vector = optimum.vector
        with torch.no_grad():
            value = float(self.objective(vector, generator)(vector))
        return optimum._replace(value=value if math.isfinite(value) else -math.inf)


def locate_population(
    structure: ModelStructure,
    guide: AmortizedGuide,
    cohort: Cohort,
    *,
    num_starts: int = 4,
    num_draws: int = 200,
    maximum_a_posteriori: bool = False,
    seed: int | Generator = 0,
) -> Optimum:
    r"""Find the neighbourhood of the best population from a few draws.

    Every start is a population drawn from the prior. The guide's draws under its shared parameters,
    weighted by the model, already say where the population is; a few draws around there settle it.
    Under ``joblib.parallel_config`` the starts run in parallel; what comes out is the same.

    Args:
        structure: The population model.
        guide: The trained guide.
        cohort: The data.
        num_starts: Number of starts; the best on fresh draws is returned.
        num_draws: Draws per individual.
        maximum_a_posteriori: Add the log prior.
        seed: Seed or generator.

    Raises:
        FitError: No start leads to a finite likelihood.
    """
    generator = make_generator(seed)
    scale = structure.population_scale(cohort, generator)
    search = _Search(structure, guide, cohort, num_draws, maximum_a_posteriori, scale)
    starts = structure.draw_populations(cohort, num_starts, generator)
    found: list[Optimum] = run_each(
        search.climb,
        [(structure.unconstrain_population(start), fork_seed(generator)) for start in starts],
    )
    best = max(found, key=lambda optimum: optimum.value)
    if not math.isfinite(best.value):
        raise FitError(
            f"None of {num_starts} starts has a finite likelihood.",
            "data that the model can produce under its prior.",
            "check units and priors, and `plots.individual_fits`; or pass `start=`.",
        )
    return best


class MarginalModel:
    r"""The collapsed model: a Pyro program over the population sites. Made by :func:`marginalize`.

    Called with a cohort it runs the population sites of the user's program and adds
    ``pyro.factor("log_marginal", log p(y | Psi))``. The draws of the individuals are made at the
    first call with a cohort and kept, so the density is a smooth function of the population.
    """

    def __init__(
        self,
        model: Model,
        guide: AmortizedGuide,
        population: Population | None,
        num_draws: int,
        seed: int,
    ) -> None:
        self.model, self.guide = model, guide
        self.population, self.num_draws, self.seed = population, num_draws, seed
        self._kept: tuple[Cohort, IndividualPosteriors, Cohort] | None = None

    def individuals(self, cohort: Cohort) -> IndividualPosteriors:
        """The draws for a cohort: made once, then kept."""
        if self._kept is None or self._kept[0] is not cohort:
            individuals = self._sample(cohort)
            self._kept = cohort, individuals, individuals.cohort.repeat(individuals.num_draws)
        return self._kept[1]

    def _sample(self, cohort: Cohort) -> IndividualPosteriors:
        generator, population = make_generator(self.seed), self.population
        structure = structure_for(self.guide, self.model, cohort)
        if population is None:
            optimum = locate_population(
                structure, self.guide, cohort, maximum_a_posteriori=True, seed=generator
            )
            population = structure.constrain_population(optimum.vector)
        return sample_individuals(
            self.guide,
            cohort,
            population=population,
            num_draws=self.num_draws,
            seed=generator,
            structure=structure,
        )

    def __call__(self, cohort: Cohort, *args: Any, **kwargs: Any) -> None:
        """Run the population sites and add the log marginal likelihood."""
        individuals = self.individuals(cohort)
        assert self._kept is not None
        rows = individuals.unconstrained.flatten(0, 1)
        log_target = collapsed_log_density(individuals.structure, self._kept[2], rows)
        log_target = log_target.reshape(individuals.log_proposal.shape)
        pyro.factor("log_marginal", _log_mean_weight(log_target, individuals.log_proposal).sum())


def marginalize(
    model: Model,
    guide: AmortizedGuide,
    *,
    population: Population | None = None,
    num_draws: int = 500,
    seed: int = 0,
) -> MarginalModel:
    r"""Integrate the individual parameters out of a program.

    Args:
        model: The population model: the guide's program, or another one with the same individual
            sites.
        guide: The trained guide.
        population: Where the draws are made, for instance ``fit.estimates``. Default: found by a
            quick search for the posterior mode at the first call with a cohort.
        num_draws: Draws per individual.
        seed: Seed of the draws.

    Returns:
        A Pyro program of a cohort, over the population sites alone, for MCMC, SVI, Laplace; for
        instance ``MCMC(NUTS(marginalize(model, guide)), 500, 200).run(cohort)``.
    """
    return MarginalModel(model, guide, population, num_draws, seed)
