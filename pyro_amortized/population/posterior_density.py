r"""The posterior density of the population, on weighted draws of the individuals.

The likelihood is that of the draws of the fit, or of new draws for several populations if those of
the fit would lose effective draws (:mod:`pyro_amortized.population.pooled_proposals`). Where it is
expanded about the draws, populations far from the estimates are evaluated anew if their weights
would matter: far away an expansion may take any value.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..numerics.vectorized_map import AtEach
from ..sampling.importance_weights import finite_or_zero_weight, log_mean, log_moments
from .exact_likelihood import ExactLikelihood
from .expanded_likelihood import ExpandedLikelihood
from .fit_result import PopulationFit
from .interpolated_likelihood import InterpolatedLikelihood
from .likelihood_choice import make_likelihood
from .likelihood_interface import Likelihood
from .pooled_proposals import pooled_individuals

AnyLikelihood = Likelihood | InterpolatedLikelihood


@dataclass(frozen=True)
class DensitySettings:
    """Accuracy of the likelihood, and its limits."""

    # Draws at which the interpolated likelihood is compared with the exact one, and the largest
    # difference of the log likelihood; half of the width of its box in standard errors
    # (decision 041).
    num_test_draws: int = 20
    max_interpolation_error: float = 0.01
    box_radius: float = 5.0
    # Mean fall of log ESS, of the tenth of the individuals with the largest fall, above which new
    # draws of the individuals are made, and the number of populations they are made for, besides
    # the estimates (decision 042: eight populations reduced the largest error from 0.7 to 0.12
    # posterior standard deviations).
    max_ess_loss: float = 0.15
    num_pooled: int = 7
    # Populations times draws times individuals whose weights are computed together.
    max_weights: int = 400_000

    # Move of an individual parameter, in posterior standard deviations, beyond which an expanded
    # likelihood is not trusted. Within it, its error was below 1.3 for 25 draws of a posterior of
    # 15 parameters (120 individuals); once, beyond it, a single draw had all of the weight.
    max_distance: float = 4.0
    # Log weight below the largest trusted one from which an untrusted one does not matter.
    negligible_log_weight: float = 10.0


DENSITY = DensitySettings()


class PosteriorDensity:
    r"""Log posterior density of the parameters that vary, up to a constant.

    Args:
        fit: The fit.
        known: The coordinates that vary, shape ``(population,)``.
        test_draws: Some of their draws, shape ``(draw, 1, known)``.
        generator: Source of randomness.
    """

    def __init__(
        self, fit: PopulationFit, known: Tensor, test_draws: Tensor, generator: Generator
    ) -> None:
        self.fit, self.known = fit, known
        # The sites of the population do not depend on the individuals: one is enough.
        self.one_individual = fit.cohort[:1].to(dtype=torch.float64)
        vectors = self.all_coordinates(test_draws[:, 0])
        likelihood = self._quickest(fit.likelihood, vectors)
        if self._ess_loss(likelihood, vectors) > DENSITY.max_ess_loss:
            populations = [fit.vector, *vectors[: DENSITY.num_pooled]]
            individuals = pooled_individuals(fit, populations, generator)
            likelihood = self._quickest(make_likelihood(individuals, fit.search.scale), vectors)
        self.likelihood = likelihood
        self.log_likelihood = EachPopulation(self.likelihood, log_mean)
        self.farthest = AtEach(self._farthest, DENSITY.max_weights // 1000)
        self.log_prior = AtEach(self._log_prior, DENSITY.max_weights // 100)

    def _quickest(self, likelihood: Likelihood, vectors: Tensor) -> AnyLikelihood:
        """The likelihood interpolated in the shared parameters, if possible and accurate."""
        fit, shared = self.fit, self.fit.structure.coordinates(self.fit.structure.shared)
        if not (
            isinstance(likelihood, ExactLikelihood)
            and InterpolatedLikelihood.is_possible(fit.individuals)
            and bool(self.known[shared].all())
        ):
            return likelihood
        radius = DENSITY.box_radius * fit.covariance.diagonal()[shared].sqrt()
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

    def log_weights(self, draws: Tensor, log_proposal: Tensor) -> Tensor:
        r"""Log weights of draws of the coordinates that vary.

        Args:
            draws: Shape ``(draw, 1, known)``.
            log_proposal: Log density that they were drawn from, shape ``(draw, 1)``.

        Returns:
            Shape ``(draw, 1)``.
        """
        vectors = self.all_coordinates(draws[:, 0])
        log_likelihood = self.log_likelihood(vectors).sum(-1)
        log_ratio = self.log_prior(vectors) - log_proposal[:, 0]
        log_weights = finite_or_zero_weight(log_likelihood + log_ratio)
        doubtful = self._doubtful(vectors, log_weights)
        if bool(doubtful.any()):
            exact = self.exact_log_likelihood(vectors[doubtful]).sum(-1)
            log_weights[doubtful] = finite_or_zero_weight(exact + log_ratio[doubtful])
        return log_weights.unsqueeze(1)

    def _doubtful(self, vectors: Tensor, log_weights: Tensor) -> Tensor:
        """Populations at which an expanded likelihood is not trusted, though it would matter there,
        shape ``(draw,)``.
        """
        if not isinstance(self.likelihood, ExpandedLikelihood):
            return torch.zeros(len(vectors), dtype=torch.bool)
        is_far = self.farthest(vectors) > DENSITY.max_distance
        trusted = log_weights.masked_fill(is_far, -math.inf).amax()
        return is_far & (log_weights > trusted - DENSITY.negligible_log_weight)

    def _farthest(self, vector: Tensor) -> Tensor:
        return self.likelihood.following.distance(vector).amax()

    @functools.cached_property
    def exact_log_likelihood(self) -> "EachPopulation":
        """The likelihood on the same draws that is not expanded."""
        likelihood = ExactLikelihood(self.likelihood.individuals, self.likelihood.following)
        return EachPopulation(likelihood, log_mean)


class EachPopulation:
    r"""A function of the log weights of a likelihood, at many populations.

    Args:
        likelihood: The likelihood.
        function: Maps log weights ``(draw, individual)`` to a tensor.
    """

    def __init__(self, likelihood: AnyLikelihood, function: Callable[[Tensor], Tensor]) -> None:
        individuals, self.likelihood = likelihood.individuals, likelihood
        structure = individuals.structure
        self.size = max(1, DENSITY.max_weights // individuals.log_weights.numel())
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
