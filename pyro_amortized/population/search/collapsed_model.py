r"""The collapsed model: a Pyro model of the population parameters alone.

The individual parameters are integrated out by importance sampling on draws of every individual
that follow the population (:mod:`pyro_amortized.population.following.following_draws`),

.. math:: \log \hat p(y \mid \Psi) = \sum_i \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}(\Psi), c)\; p(u_{ik}(\Psi) \mid \Psi)}{q_i(u_{ik})} ,

a smooth function of Psi whose gradient is exact.
"""

import math
from typing import Any, NamedTuple

import pyro
from torch import Generator, Tensor

from ...cohort import Cohort
from ...errors import FitError
from ...guide import AmortizedGuide
from ...guide.learned_likelihood import structure_to_fit
from ...guide.other_models import check_guide
from ...model import Model, ModelStructure, Population, collapsed_log_density
from ...runtime.arguments import check_count, check_program, check_seed
from ...runtime.random_numbers import make_generator
from ...sampling.importance_weights import finite_or_zero_weight, log_mean
from ...sampling.individual_draws import sample_with_structure
from ...sampling.individuals import MIN_DRAWS, IndividualPosteriors
from ..following.fitted_following import follow
from ..following.fixed_draws import without_negligible
from ..following.following_draws import Following
from .maximum_search import Search
from .starting_values import locate_population


class _CohortDraws(NamedTuple):
    """The draws of one cohort.

    ``impossible`` marks the draws of weight zero; ``repeated_cohort`` contains every individual
    once per draw, and ``draws`` its draws, shape ``(draw, individual, latent)``, which follow the
    population.
    """

    cohort: Cohort
    individuals: IndividualPosteriors
    impossible: Tensor
    repeated_cohort: Cohort
    draws: Tensor
    following: Following

    def at(self, population: Population) -> tuple[Tensor, Tensor]:
        """The draws at a population, shape ``(draw * individual, latent)``, and the log Jacobian of
        their move, shape ``(draw * individual,)``.
        """
        vector = self.individuals.structure.unconstrain_population(population)
        draws, log_det = self.following.moved(self.draws, vector)
        return draws.flatten(0, 1), log_det.repeat(len(draws))


class MarginalModel:
    r"""The collapsed model, a Pyro model of a cohort. Made by :func:`marginalize`.

    It samples the population sites of the user's model and adds
    ``pyro.factor("log_marginal", log p(y | Psi))``. The draws of the individuals are made at the
    first call with a cohort and are used in all later calls with it, so that the density is a
    smooth function of the population.
    """

    def __init__(
        self,
        model: Model,
        guide: AmortizedGuide | None,
        population: Population | None,
        num_draws: int,
        seed: int,
    ) -> None:
        check_program(model, FitError)
        if guide is not None:
            check_guide(guide, FitError)
        check_count("num_draws", num_draws, least=MIN_DRAWS, error=FitError)
        check_seed(seed, FitError)
        self.model, self.guide = model, guide
        self.population, self.num_draws, self.seed = population, num_draws, seed
        self._last_draws: _CohortDraws | None = None

    def individuals(self, cohort: Cohort) -> IndividualPosteriors:
        """The draws of the individuals of a cohort. They are made once."""
        return self._draws(cohort).individuals

    def _draws(self, cohort: Cohort) -> _CohortDraws:
        if self._last_draws is None or self._last_draws.cohort is not cohort:
            individuals = self._sample(cohort)
            draws, impossible = without_negligible(
                individuals.unconstrained, individuals.log_weights
            )
            repeated_cohort = individuals.cohort.repeat(individuals.num_draws)
            self._last_draws = _CohortDraws(
                cohort,
                individuals,
                impossible,
                repeated_cohort,
                draws,
                self._following(individuals),
            )
        return self._last_draws

    def _following(self, individuals: IndividualPosteriors) -> Following:
        structure, generator = individuals.structure, make_generator(self.seed)
        return follow(individuals, structure.population_scale(individuals.cohort, generator))

    def _sample(self, cohort: Cohort) -> IndividualPosteriors:
        generator = make_generator(self.seed)
        structure = structure_to_fit(self.model, cohort, self.guide, "corrected")
        population = self.population
        if population is None:
            population = self._mode(structure, cohort, generator)
        return sample_with_structure(
            structure,
            self.guide,
            cohort,
            population,
            num_draws=self.num_draws,
            seed=generator,
        )

    def _mode(self, structure: ModelStructure, cohort: Cohort, generator: Generator) -> Population:
        """The neighbourhood of the posterior mode of the population."""
        search = Search.begin(structure, self.guide, cohort, "posterior mode", generator)
        return structure.constrain_population(locate_population(search, seed=generator))

    def __call__(self, cohort: Cohort, *args: Any, **kwargs: Any) -> None:
        """Sample the population sites and add the log marginal likelihood."""
        draws = self._draws(cohort)
        individuals = draws.individuals
        log_target = collapsed_log_density(
            individuals.structure, draws.repeated_cohort, draws.at
        ).reshape(individuals.log_proposal.shape)
        log_weights = finite_or_zero_weight(log_target - individuals.log_proposal)
        log_weights = log_weights.masked_fill(draws.impossible, -math.inf)
        pyro.factor("log_marginal", log_mean(log_weights, individuals.factors).sum())


def marginalize(
    model: Model,
    *,
    guide: AmortizedGuide | None = None,
    population: Population | None = None,
    num_draws: int = 500,
    seed: int = 0,
) -> MarginalModel:
    r"""Integrate the individual parameters out of a model.

    Args:
        model: The population model: the model of the guide, or another one with the same individual
            sites.
        guide: A trained guide. Default: the draws are made without one.
        population: Population parameters at which the draws are made, for instance
            ``fit.estimates``. Default: they are found by a short search for the posterior mode at
            the first call with a cohort.
        num_draws: Draws per individual.
        seed: Seed of the draws.

    Returns:
        A Pyro model of a cohort with the population sites alone, for MCMC, SVI or Laplace; for
        instance ``MCMC(NUTS(marginalize(model)), 500, 200).run(cohort)``.

    Raises:
        FitError: The model is not callable, ``guide`` is not a guide, there are fewer than 25
            draws, or the seed is not an integer.
    """
    return MarginalModel(model, guide, population, num_draws, seed)
