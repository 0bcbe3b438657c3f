r"""The search for the maximum of the marginal likelihood: draw, maximise, draw again.

Within a round the draws remain fixed, so that the objective is a smooth function of the population
with an exact gradient. The next round draws at the maximum that was found. Mixtures that were
fitted to single individuals are tried first in the next round.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from ...cohort import Cohort
from ...errors import AmortizedWarning
from ...guide import AmortizedGuide
from ...model import ModelStructure, Population
from ...numerics.laplace import Curvature
from ...numerics.maximization import Optimum, maximize
from ...runtime.random_numbers import fork_seed, make_generator
from ...sampling.individual_draws import sample_with_structure
from ...sampling.individuals import IndividualPosteriors
from ...sampling.refinement_settings import FULL_EFFORT, NO_CHAINS, Effort
from ...sampling.weighted_draws import Refinement
from ..following.following_draws import Following
from ..likelihood.large_cohorts.individual_blocks import (
    Drawer,
    DrawRequest,
    draws_by_blocks,
    summarized_draws,
)
from ..likelihood.large_cohorts.summarized_draws import RoundDraws
from ..likelihood.likelihood_choice import differentiable_likelihood, gains_from, is_quadratic
from ..likelihood.likelihood_interface import Drawn, Likelihood
from .flat_directions import round_steps
from .vanishing_deviations import larger_deviations, vanishing_coordinates

# The likelihood; with the prior density in the support (as ``AutoDelta`` does); with the prior
# density in unconstrained coordinates (as ``AutoLaplace`` does and NUTS samples).
Criterion = Literal["maximum likelihood", "maximum a posteriori", "posterior mode"]


@dataclass(frozen=True)
class SearchSettings:
    """Limits of one round of the search."""

    # Largest mean fall of log ESS within a round. Beyond it the draws no longer represent the
    # posteriors of the individuals.
    max_ess_loss: float = 0.4
    # Largest distances from where the observations were expanded, in posterior standard deviations
    # of the individual parameters and prior ones of the shared parameters. The next pair is used
    # where the round promised more than new draws show (decision 035).
    max_distances: tuple[tuple[float, float], ...] = (
        *((30.0, 1.0), (10.0, 0.5), (4.0, 0.25), (2.0, 0.12), (1.0, 0.06)),
    )
    # The pair of the first round: with the wider ones, first rounds were repeated on all of four
    # data sets.
    first_level: int = 2
    # Weight of the penalty beyond these limits, per individual; relative distance at which the
    # steep part of it is one.
    penalty: float = 10.0
    steepness: float = 10.0
    # Iterations of the optimiser in a round, and in a rough round.
    max_iterations: int = 50
    max_rough_iterations: int = 20
    # Slopes, in log likelihood per standard error, at which it stops: about the distance from the
    # maximum in standard errors.
    tolerance: float = 1e-3
    rough_tolerance: float = 0.1
    # A round ends with an iteration that gains less than this part of the round's gain: new draws
    # follow, and near a limit of the round the optimizer takes many small steps (decision 060).
    min_share: float = 0.02
    # Individuals of a large cohort whose draws show whether a larger standard deviation is better.
    max_kept: int = 500


SEARCH = SearchSettings()


class Ascent(NamedTuple):
    r"""The result of one round.

    Args:
        optimum: Where the round ended.
        likelihood: The likelihood that was maximised.
        gain: Gain of the objective.
        error: Monte Carlo standard error of the gain.
        held: Coordinates that were held, among them those of a standard deviation that cannot be
            distinguished from zero, shape ``(population,)``.
        curvature: That of the likelihood where the round ended, if it is known.
    """

    optimum: Optimum
    likelihood: Likelihood
    gain: float
    error: float
    held: Tensor
    curvature: Curvature | None = None

    def mixtures_at(self, vector: Tensor) -> Refinement:
        """The mixtures of the individuals of this round, moved to a population."""
        refinement = self.likelihood.individuals.refinement
        mixture = self.likelihood.following.moved_mixture(refinement.mixture, vector)
        return replace(refinement, mixture=mixture)


@dataclass(frozen=True, eq=False)
class Search:
    r"""What all rounds of a search have in common.

    Args:
        structure: The population model.
        guide: The trained guide, or None.
        cohort: The data.
        criterion: What is maximised.
        scale: Size of a large step in each unconstrained parameter, shape ``(population,)``.
        seed: Seed of the individuals that show how much the individual parameters vary.
    """

    structure: ModelStructure
    guide: AmortizedGuide | None
    cohort: Cohort
    criterion: Criterion
    scale: Tensor
    seed: int = 0

    @classmethod
    def begin(
        cls,
        structure: ModelStructure,
        guide: AmortizedGuide | None,
        cohort: Cohort,
        criterion: Criterion,
        generator: Generator,
    ) -> "Search":
        """A search with the scale of the prior. The scale is estimated from draws; one search is
        therefore used for the starts, the rounds and the standard errors of a fit.
        """
        scale = structure.population_scale(cohort, generator)
        return cls(structure, guide, cohort, criterion, scale, fork_seed(generator))

    def part(self, num: int, generator: Generator) -> "Search":
        """The same search with some of the individuals, chosen at random."""
        if len(self.cohort) <= num:
            return self
        picked = torch.randperm(len(self.cohort), generator=generator)[:num]
        return replace(self, cohort=self.cohort[picked])

    def draw(
        self,
        vector: Tensor,
        num_draws: int,
        generator: Generator,
        known: Refinement | None = None,
        effort: Effort = NO_CHAINS,
    ) -> IndividualPosteriors:
        r"""Draws of every individual at a population.

        Args:
            vector: The population in unconstrained coordinates, shape ``(population,)``.
            num_draws: Draws per individual.
            generator: Source of randomness.
            known: Mixtures of the individuals that are tried first.
            effort: What is done for individuals whose weights are poor. With less than the full
                effort, for draws that are not the result, there are no warnings.
        """
        with warnings.catch_warnings():
            if effort != FULL_EFFORT:
                warnings.simplefilter("ignore", AmortizedWarning)
            return sample_with_structure(
                self.structure,
                self.guide,
                self.cohort,
                self.structure.constrain_population(vector),
                num_draws=num_draws,
                seed=generator,
                effort=effort,
                known=known,
            )

    def draw_for_round(
        self,
        vector: Tensor,
        num_draws: int,
        generator: Generator,
        known: Refinement | None = None,
        effort: Effort = NO_CHAINS,
    ) -> RoundDraws:
        """As :meth:`draw`. Of a large cohort only what a round needs is kept, unless the effort is
        that for the result; under ``joblib.parallel_config`` it is drawn in several processes.
        """
        if not is_quadratic(self.structure, self.cohort, num_draws):
            return self.draw(vector, num_draws, generator, known, effort)
        drawer = Drawer(self.structure, self.guide, self.scale)
        if effort == FULL_EFFORT:
            request = DrawRequest(vector, num_draws, NO_CHAINS._replace(search_modes=False))
            return draws_by_blocks(drawer, self.cohort, request, generator, known)
        request = DrawRequest(vector, num_draws, effort)
        return summarized_draws(drawer, self.cohort, request, generator, known)

    def value_of(self, individuals: Drawn) -> float:
        """The objective at the population of some draws."""
        population = individuals.population
        vector = self.structure.unconstrain_population(population)
        return float(
            individuals.marginal_estimate.log_mean.sum() + self.log_prior(population, vector)
        )

    def likelihood(self, individuals: RoundDraws) -> Likelihood:
        """The likelihood on some draws, differentiable."""
        return differentiable_likelihood(individuals, self.scale)

    def objective(
        self, likelihood: Likelihood, weights: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """The log likelihood of all individuals, with weights or without, plus the log prior if the
        criterion contains it, as a function of the unconstrained population.
        """

        def value(vector: Tensor) -> Tensor:
            population = self.structure.constrain_population(vector)
            values = likelihood(population)
            total = (values if weights is None else weights * values).sum()
            return total + self.log_prior(population, vector)

        return value

    def log_prior(self, population: Population, vector: Tensor) -> Tensor:
        """The part of the criterion that is not the likelihood; a scalar."""
        if self.criterion == "maximum likelihood":
            return torch.zeros((), dtype=torch.float64)
        log_prior = self.structure.log_prior(self.cohort, population)
        if self.criterion == "posterior mode":
            log_prior = log_prior + self.structure.log_abs_det(vector)
        return log_prior

    def ascend(
        self,
        likelihood: Likelihood,
        vector: Tensor,
        held: Tensor,
        rough: bool = False,
        level: int = 0,
    ) -> Ascent:
        r"""Maximise the objective on fixed draws, within limits.

        The limits are the loss of effective draws and the distance from where the draws were made
        (:class:`SearchSettings`).

        Args:
            likelihood: The likelihood on draws that were made at ``vector``.
            vector: Start, in unconstrained coordinates, shape ``(population,)``.
            held: Coordinates that are held, same shape.
            rough: Stop early.
            level: Which of the largest distances limits the round.
        """
        with torch.no_grad():
            before = float(self.objective(likelihood)(vector))
        free = ~held
        # Far from the maximum other directions are flat, and a prior determines all of them.
        hold_flat = not rough and self.criterion == "maximum likelihood"
        # At a kink of a learned density an iteration may gain little far from the maximum.
        has_kinks = self.structure.estimator == "likelihood-free"
        within_limits = self._objective_within_limits(likelihood, SEARCH.max_distances[level])
        optimum = maximize(
            lambda x: within_limits(vector.masked_scatter(free, x)),
            vector[free],
            scale=round_steps(likelihood.following.scores[:, free], self.scale[free], hold_flat),
            max_iterations=SEARCH.max_rough_iterations if rough else SEARCH.max_iterations,
            tolerance=SEARCH.rough_tolerance if rough else SEARCH.tolerance,
            min_share=0.0 if has_kinks else SEARCH.min_share,
        )
        optimum = optimum._replace(vector=vector.masked_scatter(free, optimum.vector))
        gain = optimum.value - before
        return Ascent(optimum, likelihood, gain, self.error_of(likelihood, optimum), held)

    def error_of(self, likelihood: Likelihood, optimum: Optimum) -> float:
        """Monte Carlo standard error of the promised gain."""
        start = self.structure.constrain_population(likelihood.following.center)
        end = self.structure.constrain_population(optimum.vector)
        with torch.no_grad():
            gains = gains_from(likelihood, start)(end)
        return float(gains.errors.nan_to_num(0.0, 0.0).norm())

    def vanishing(
        self, likelihood: Likelihood, vector: Tensor, fixed: Tensor, flat: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Coordinates of standard deviations that cannot be distinguished from zero, apart from
        those that are fixed, and a population in which one of them is much larger and the
        likelihood is higher, or None; ``flat`` as in :func:`vanishing_coordinates`.
        """
        if self.criterion == "posterior mode":  # it has a proper prior in these coordinates
            return torch.zeros(len(vector), dtype=torch.bool), None
        model = (self.structure, self.cohort, likelihood, vector)
        held = vanishing_coordinates(*model, self.seed, flat) & ~fixed
        if not bool(held.any()):
            return held, None
        individuals, following = self.some_draws(likelihood)
        return held, larger_deviations(individuals, following, vector, held)

    def some_draws(self, likelihood: Likelihood) -> tuple[IndividualPosteriors, Following]:
        """The draws of a likelihood; where they were not kept, new ones of some individuals."""
        drawn = likelihood.individuals
        if isinstance(drawn, IndividualPosteriors):
            return drawn, likelihood.following
        generator = make_generator(self.seed)
        picked = torch.randperm(len(self.cohort), generator=generator)[: SEARCH.max_kept]
        search = replace(self, cohort=self.cohort[picked])
        vector = likelihood.following.center
        new = search.draw(vector, drawn.num_draws, generator, drawn.refinement.take(picked))
        return new, likelihood.following.take(picked)

    def _objective_within_limits(
        self, likelihood: Likelihood, max_distance: tuple[float, float]
    ) -> Callable[[Tensor], Tensor]:
        """The objective with a penalty beyond the limits of a round."""
        with torch.no_grad():
            log_ess = likelihood.moments(likelihood.individuals.population)[1]
        penalty = SEARCH.penalty * len(self.cohort)

        def value(x: Tensor) -> Tensor:
            population = self.structure.constrain_population(x)
            log_likelihood, remaining = likelihood.moments(population)
            loss = (log_ess - remaining).nan_to_num(0.0, 0.0, 0.0).mean()
            outside = (loss - SEARCH.max_ess_loss).relu().pow(2)
            distances = zip(likelihood.distances(population), max_distance, strict=True)
            outside = outside + sum(_beyond(x / limit) for x, limit in distances)
            total = log_likelihood.sum() - penalty * outside
            return total + self.log_prior(population, x)

        return value


def _beyond(relative: Tensor) -> Tensor:
    """Penalty of distances in units of their limits, zero within them, a scalar. It is steep: the
    expansion of a log density can grow with the square of the distance.
    """
    outside = (relative - 1).relu()
    steep = SEARCH.steepness * outside
    return (outside.pow(2) + steep.pow(4)).mean() if len(relative) else relative.sum()
