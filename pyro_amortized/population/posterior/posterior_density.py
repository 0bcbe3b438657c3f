r"""The posterior density of the population, on weighted draws of the individuals.

The likelihood is that of the draws of the fit, or of new draws for several populations if those of
the fit would lose effective draws (:mod:`pyro_amortized.population.posterior.pooled_proposals`);
draws that flow with the population are kept (decision 070). Where it is expanded about the draws,
it is compared with the density of the model for individuals whose draws have moved far
(:mod:`pyro_amortized.population.likelihood.expansion_check`): far away an expansion may take any
value.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ...numerics.cholesky import factored
from ...numerics.vectorized_map import AtEach
from ...runtime.progress import count_step
from ...sampling.importance_weights import finite_or_zero_weight, log_mean, log_moments
from ..likelihood.exact_likelihood import ExactLikelihood
from ..likelihood.expanded_likelihood import ExpandedLikelihood
from ..likelihood.expansion_check import ExpandedPopulations, ExpansionCheck
from ..likelihood.interpolated_likelihood import InterpolatedLikelihood
from ..likelihood.likelihood_choice import make_likelihood
from ..likelihood.likelihood_interface import WeightedLikelihood
from ..results.fit_result import PopulationFit
from .pooled_proposals import pooled_individuals

AnyLikelihood = WeightedLikelihood | InterpolatedLikelihood


@dataclass(frozen=True)
class DensitySettings:
    r"""Accuracy of the likelihood, and its limits.

    Args:
        num_test_draws: Draws at which the interpolated likelihood is compared with the exact one
            (decision 041).
        max_interpolation_error: Largest difference of their log likelihoods.
        box_radius: Half of the width of the box of the interpolation, in standard errors.
        max_ess_loss: Mean fall of log ESS, of the tenth of the individuals with the largest fall,
            above which new draws of the individuals are made.
        num_pooled: Number of populations that they are made for, besides the estimates. Eight
            reduced the largest error from 0.7 to 0.12 posterior standard deviations (decision 042).
        max_weights: Populations times draws times individuals whose weights are computed together.
        max_expanded_weights: The same for an expanded likelihood, with some ten numbers for each of
            its weights: 14,400 weights took 8 ms one by one, 5 ms in parts of ten, and 7 ms in
            parts of 27.
        max_populations: Populations whose prior densities and distances are computed together.
        populations_per_step: Populations after which a progress bar moves.
        max_distance: Move of an individual parameter, in posterior standard deviations, beyond
            which an expanded likelihood of this individual is not trusted: where the farthest of
            120 individuals had moved by one, the errors of all together were 0.1; 0.6 at two, and
            32 at four.
        max_shared_distance: Move of a shared parameter, in units of its scale, beyond which no
            individual is trusted: that of the first round of a fit (decision 035).
        max_error: Root mean square error of the log likelihood of all individuals, over the
            populations whose weights matter, that an expanded likelihood may have: the mean of a
            parameter moves by less than this part of its posterior standard deviation.
        max_pilot_error: The same for pilot draws, which decide only where the draws are made.
    """

    num_test_draws: int = 20
    max_interpolation_error: float = 0.01
    box_radius: float = 5.0
    max_ess_loss: float = 0.15
    num_pooled: int = 7
    max_weights: int = 400_000
    max_expanded_weights: int = 100_000
    max_populations: int = 400
    populations_per_step: int = 100
    max_distance: float = 1.5
    max_shared_distance: float = 0.25
    max_error: float = 0.1
    max_pilot_error: float = 0.5


DENSITY = DensitySettings()


class WeightedPopulations(NamedTuple):
    """Log weights of populations, shape ``(draw, 1)``, log p(y_i | Psi), shape ``(draw,
    individual)``, and the error of their sum over the individuals that an expansion leaves.
    """

    log_weights: Tensor
    log_likelihoods: Tensor
    error: float


class PosteriorDensity:
    r"""Log posterior density of the parameters that vary, up to a constant.

    Args:
        fit: The fit.
        covariance: Covariance of the coordinates that vary, NaN in the others, shape ``(population,
            population)``.
        test_draws: Some draws of the coordinates that vary, shape ``(draw, 1, known)``.
        generator: Source of randomness.
    """

    def __init__(
        self, fit: PopulationFit, covariance: Tensor, test_draws: Tensor, generator: Generator
    ) -> None:
        self.fit, self.variances = fit, covariance.diagonal()
        self.known = ~self.variances.isnan()
        # The sites of the population do not depend on the individuals: one is enough.
        self.one_individual = fit.cohort[:1].to(dtype=torch.float64)
        vectors = self.all_coordinates(test_draws[:, 0])
        likelihood = self._quickest(fit.likelihood, vectors)
        flows = likelihood.following.flows  # with the population, all over its posterior
        if not flows and self._ess_loss(likelihood, vectors) > DENSITY.max_ess_loss:
            populations = [fit.vector, *vectors[: DENSITY.num_pooled]]
            individuals = pooled_individuals(fit, populations, generator)
            likelihood = self._quickest(make_likelihood(individuals, fit.search.scale), vectors)
        self.likelihood = likelihood
        log_likelihood = functools.partial(log_mean, factors=likelihood.individuals.factors)
        self.log_likelihood = EachPopulation(self.likelihood, log_likelihood)
        self.distances = AtEach(self._distances, DENSITY.max_populations)
        self.generator, self.check = generator, None
        if isinstance(likelihood, ExpandedLikelihood):
            center, known = fit.vector[self.known], covariance[self.known][:, self.known]
            self.check = ExpansionCheck(likelihood, center, factored(known))
        self.log_prior = AtEach(self._log_prior, DENSITY.max_populations)

    def _quickest(self, likelihood: WeightedLikelihood, vectors: Tensor) -> AnyLikelihood:
        """The likelihood interpolated in the shared parameters, if possible and accurate."""
        fit, shared = self.fit, self.fit.structure.coordinates(self.fit.structure.shared)
        if not (
            isinstance(likelihood, ExactLikelihood)
            and InterpolatedLikelihood.is_possible(fit.individuals)
            and bool(self.known[shared].all())
        ):
            return likelihood
        radius = DENSITY.box_radius * self.variances[shared].sqrt()
        interpolated = InterpolatedLikelihood(likelihood, fit.vector[shared], radius)
        populations = [fit.structure.constrain_population(v) for v in vectors]
        with torch.no_grad():
            error = [(interpolated(p) - interpolated.exact(p)).sum() for p in populations]
        largest = float(torch.stack(error).abs().max())
        return interpolated if largest < DENSITY.max_interpolation_error else likelihood

    def _log_prior(self, vector: Tensor) -> Tensor:
        structure = self.fit.structure
        population = structure.constrain_population(vector)
        return structure.log_prior(self.one_individual, population) + structure.log_abs_det(vector)

    def _ess_loss(self, likelihood: AnyLikelihood, vectors: Tensor) -> float:
        """Mean fall of log ESS from the estimates to other populations, of the tenth of the
        individuals with the largest fall.
        """
        constrain = self.fit.structure.constrain_population
        with torch.no_grad():
            at_estimates, *elsewhere = [
                log_moments(likelihood.log_weights(constrain(v)))[1]
                for v in (self.fit.vector, *vectors[: DENSITY.num_pooled])
            ]
        fall = torch.stack([at_estimates - x for x in elsewhere]).nan_to_num(math.inf).mean(0)
        return float(fall.topk(max(1, len(fall) // 10)).values.mean())

    def all_coordinates(self, draws: Tensor) -> Tensor:
        """Vectors of all coordinates, shape ``(draw, population)``, from those that vary."""
        vectors = self.fit.vector.repeat(len(draws), 1)
        vectors[:, self.known] = draws
        return vectors

    def weighted(
        self, draws: Tensor, log_proposal: Tensor, max_error: float = DENSITY.max_error
    ) -> "WeightedPopulations":
        r"""Log weights and log likelihoods of draws of the coordinates that vary.

        Args:
            draws: Shape ``(draw, 1, known)``.
            log_proposal: Log density that they were drawn from, shape ``(draw, 1)``.
            max_error: Largest error of an expanded likelihood.
        """
        vectors = self.all_coordinates(draws[:, 0])
        parts = []
        for part in vectors.split(DENSITY.populations_per_step):
            parts.append(self.log_likelihood(part))
            count_step(f"{sum(map(len, parts))} of {len(vectors)} populations")
        following = self.likelihood.following
        values = torch.cat(parts) - (vectors - following.center) @ following.bias.T
        log_ratio = self.log_prior(vectors) - log_proposal[:, 0]
        error = 0.0
        if self.check is not None:
            is_far = self.distances(vectors) > 1
            candidates = ExpandedPopulations(vectors, draws[:, 0], values, log_ratio, is_far)
            values, error = self.check.corrected(candidates, max_error, self.generator)
        log_weights = finite_or_zero_weight(values.sum(-1) + log_ratio)
        return WeightedPopulations(log_weights.unsqueeze(1), values, error)

    def _distances(self, vector: Tensor) -> Tensor:
        """How far a population is from where the likelihood was expanded, in units of the largest
        trusted distance, shape ``(individual,)``.
        """
        assert isinstance(self.likelihood, ExpandedLikelihood)
        population = self.fit.structure.constrain_population(vector)
        individual, shared = self.likelihood.distances(population)
        relative = individual / DENSITY.max_distance
        if len(shared) == 0:
            return relative
        return torch.maximum(relative, shared.amax() / DENSITY.max_shared_distance)


class EachPopulation:
    r"""A function of the log weights of a likelihood, at many populations.

    Args:
        likelihood: The likelihood.
        function: Maps log weights ``(draw, individual)`` to a tensor.
    """

    def __init__(self, likelihood: AnyLikelihood, function: Callable[[Tensor], Tensor]) -> None:
        individuals, self.likelihood = likelihood.individuals, likelihood
        structure = individuals.structure
        is_expanded = isinstance(likelihood, ExpandedLikelihood)
        most = DENSITY.max_expanded_weights if is_expanded else DENSITY.max_weights
        self.size = max(1, most // individuals.log_weights.numel())
        if isinstance(likelihood, ExactLikelihood):  # it may solve dynamics, one call at a time
            self.size = 1

        def anywhere(vector: Tensor) -> Tensor:
            return function(likelihood.log_weights(structure.constrain_population(vector)))

        def within(vector: Tensor) -> Tensor:
            assert isinstance(likelihood, InterpolatedLikelihood)
            return function(likelihood.log_weights_within(structure.constrain_population(vector)))

        interpolated = isinstance(likelihood, InterpolatedLikelihood)
        self.within = AtEach(within if interpolated else anywhere, self.size)
        self.outside = AtEach(anywhere, 1)

    def __call__(self, vectors: Tensor) -> Tensor:
        """The values at the rows of ``vectors``, shape ``(population, *)``."""
        if not isinstance(self.likelihood, InterpolatedLikelihood):
            return self.within(vectors)
        inside = self.likelihood.covers(vectors)
        parts = [(inside, self.within), (~inside, self.outside)]
        values = [(rows, each(vectors[rows])) for rows, each in parts if bool(rows.any())]
        result = values[0][1].new_empty(len(vectors), *values[0][1].shape[1:])
        for rows, part in values:
            result[rows] = part
        return result
