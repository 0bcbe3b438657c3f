r"""The collapsed model as a Pyro model of the population parameters."""

import math
from typing import Any, NamedTuple

import pyro
from torch import Tensor

from ..cohort import Cohort
from ..errors import FitError
from ..guide import AmortizedGuide, structure_for
from ..model import Model, Population, collapsed_log_density
from ..runtime.arguments import check_count, check_is, check_program, check_seed
from ..runtime.random_numbers import make_generator
from ..sampling.importance_weights import finite_or_zero_weight, log_mean
from ..sampling.individuals import MIN_DRAWS, IndividualPosteriors, sample_individuals
from .fixed_draws import with_stand_ins
from .maximum_search import Search, locate_population


class _Kept(NamedTuple):
    """What a collapsed model keeps for a cohort: the draws, which of them count as impossible, and
    rows of the program for all of them.
    """

    cohort: Cohort
    individuals: IndividualPosteriors
    dead: Tensor
    many: Cohort
    rows: Tensor


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
        check_program(model, FitError)
        fix = "load it first, `load_guide(path, model, cohort)`."
        check_is("guide", guide, AmortizedGuide, fix, FitError)
        check_count("num_draws", num_draws, least=MIN_DRAWS, error=FitError)
        check_seed(seed, FitError)
        self.model, self.guide = model, guide
        self.population, self.num_draws, self.seed = population, num_draws, seed
        self._kept: _Kept | None = None

    def individuals(self, cohort: Cohort) -> IndividualPosteriors:
        """The draws for a cohort: made once, then kept."""
        return self._keep(cohort).individuals

    def _keep(self, cohort: Cohort) -> _Kept:
        if self._kept is None or self._kept.cohort is not cohort:
            found = self._sample(cohort)
            dead = found.log_weights == -math.inf
            draws = with_stand_ins(found.unconstrained, found.log_weights, dead)
            many = found.cohort.repeat(found.num_draws)
            self._kept = _Kept(cohort, found, dead, many, draws.flatten(0, 1))
        return self._kept

    def _sample(self, cohort: Cohort) -> IndividualPosteriors:
        generator, population = make_generator(self.seed), self.population
        structure = structure_for(self.guide, self.model, cohort)
        structure.check_density()
        if population is None:
            search = Search.begin(structure, self.guide, cohort, "posterior mode", generator)
            optimum = locate_population(search, seed=generator)
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
        kept = self._keep(cohort)
        individuals = kept.individuals
        log_target = collapsed_log_density(individuals.structure, kept.many, kept.rows)
        log_target = log_target.reshape(individuals.log_proposal.shape)
        log_weights = finite_or_zero_weight(log_target - individuals.log_proposal)
        log_weights = log_weights.masked_fill(kept.dead, -math.inf)
        pyro.factor("log_marginal", log_mean(log_weights).sum())


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
