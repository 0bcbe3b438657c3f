r"""Draws of the population parameters, and of the individuals with the population's uncertainty.

Sampling-importance resampling on the collapsed model: draws from a Student-t distribution about the
estimates, with the covariance of the fit, are weighted by

.. math:: p(\Psi)\, \prod_i \hat p(y_i \mid \Psi)

on weighted draws of the individuals: those of the fit, or, where these would lose their effective
number on the way, fresh ones for several populations
(:mod:`pyro_amortized.population.pooled_proposals`). A mixture is
fitted to the draws of the population, from which (and a tenth from the first
distribution) the draws come that are weighted and resampled. Given each draw of the population, one
of the draws of every individual is picked by its weight under that population.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..errors import FitError
from ..numerics.cholesky import factored
from ..numerics.vectorized_map import AtEach
from ..runtime.arguments import check_count, check_is
from ..runtime.random_numbers import make_generator
from ..sampling.importance_weights import (
    effective_sample_size,
    finite_or_zero_weight,
    importance_estimate,
    log_mean,
    normalized_weights,
    resample,
)
from ..sampling.individuals import IndividualPosteriors
from ..sampling.student_mixture import StudentMixture, fit_student_mixture
from ..sampling.weighted_fits import tempered_weights
from .exact_likelihood import ExactLikelihood
from .fit_result import PopulationFit
from .interpolated_likelihood import InterpolatedLikelihood
from .likelihood_choice import Likelihood, make_likelihood
from .pooled_proposals import pooled_individuals

MAX_ROUNDS, ENOUGH, NUM_COMPONENTS = 3, 0.7, 3
# Draws at which an interpolated likelihood is tried, and how near the exact one it must be; half of
# the width of its box in standard errors.
NUM_TRIED, CLOSE, FARTHEST = 20, 0.01, 5.0
# Mean fall of log ESS from which the draws are made anew, for so many populations together.
LOST, NUM_WIDENED = 0.15, 7
MAX_WEIGHTS = 400_000  # of all draws at the populations that are taken together
AnyLikelihood = Likelihood | InterpolatedLikelihood


@dataclass(frozen=True, eq=False)
class PopulationDraws:
    r"""Posterior draws of the population. Made by :func:`sample_population`.

    Args:
        fit: The fit.
        vectors: Equally weighted draws, unconstrained, shape ``(draw, population)``.
        ess: Effective number of the weighted draws they were picked from.
        pareto_k: Pareto k of the weights; above 0.7 use NUTS on ``marginalize(model, guide)``.
        likelihood: Log p(y_i | Psi) on draws of the individuals: the fit's own or wider ones; or
            the same interpolated in the shared parameters, where that agrees within 0.01.
    """

    fit: PopulationFit
    vectors: Tensor
    ess: float
    pareto_k: float
    likelihood: AnyLikelihood

    @property
    def individual_posteriors(self) -> IndividualPosteriors:
        """The weighted draws of the individuals behind the likelihood, at the fit's estimates."""
        return self.likelihood.individuals

    @property
    def draws(self) -> dict[str, Tensor]:
        """Draws by site, in their support, shape ``(draw, *site)``."""
        return self.fit.structure.constrain_population(self.vectors)

    def log_likelihoods(self) -> Tensor:
        """Log p(y_i | Psi) at every draw, shape ``(draw, individual)``."""
        return _EachPopulation(self.likelihood, log_mean)(self.vectors)

    def individuals(self, seed: int = 0) -> Tensor:
        """One draw of every individual's parameters per draw of the population, unconstrained,
        shape ``(draw, individual, latent)``.
        """
        generator, fit, found = make_generator(seed), self.fit, []
        drawn = self.individual_posteriors.unconstrained
        rows = torch.arange(len(fit.cohort))
        each = _EachPopulation(self.likelihood, normalized_weights)
        for some in self.vectors.split(each.size):
            weights = each(some).movedim(1, 0)  # (draw, population, individual)
            picked = resample(weights.flatten(1), 1, generator).reshape(weights.shape[1:])
            found.append(drawn[picked, rows])
        return torch.cat(found)

    def individual_sites(self, seed: int = 0) -> dict[str, Tensor]:
        """The same by site, in their support, shape ``(draw, individual, *event)``."""
        structure, cohort, drawn = self.fit.structure, self.fit.cohort, self.individuals(seed)
        populations = [structure.constrain_population(vector) for vector in self.vectors]

        def each(rows: range) -> dict[str, Tensor]:
            found = [structure.constrained_draws(cohort, drawn[[i]], populations[i]) for i in rows]
            return {name: torch.cat([x[name] for x in found]) for name in structure.individual}

        # Few supports move with the population; where none does, one call serves all draws.
        together = structure.constrained_draws(cohort, drawn, populations[0])
        few = range(min(3, len(drawn)))
        if all(torch.equal(x, together[name][: len(few)]) for name, x in each(few).items()):
            return together
        return each(range(len(drawn)))


def sample_population(
    fit: PopulationFit, *, num_draws: int = 500, num_proposals: int = 2000, seed: int = 0
) -> PopulationDraws:
    r"""Posterior draws of the population parameters, by sampling-importance resampling.

    Parameters that were fixed, or whose variance vanished, stay where they are.

    Args:
        fit: A fit with standard errors.
        num_draws: Draws wanted.
        num_proposals: Draws that are weighted.
        seed: Seed.

    Raises:
        FitError: The fit has no standard errors.

    References:
        Dosne, Bergstrand, Harling, Karlsson (2016), Improving the estimation of parameter
        uncertainty distributions in nonlinear mixed effects models using sampling importance
        resampling.
    """
    check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.", FitError)
    check_count("num_draws", num_draws, error=FitError)
    check_count("num_proposals", num_proposals, error=FitError)
    known = fit.estimated
    if not bool(known.any()):
        raise FitError(
            "The fit has no standard errors to draw around.",
            "a fit that converged.",
            "look at `fit.message`, or use NUTS on `marginalize(model, guide)`.",
        )
    generator = make_generator(seed)
    first = _student(fit.vector[known], factored(fit.covariance[known][:, known]))
    target = _Posterior(fit, known, first.draw(NUM_TRIED, generator), generator)
    mixture = first
    for _ in range(MAX_ROUNDS):
        pilot = mixture.draw(max(100, num_proposals // 8), generator)
        log_weights = target(pilot) - mixture.log_prob(pilot)
        if float(effective_sample_size(log_weights)) > ENOUGH * len(pilot):
            break
        weights = tempered_weights(log_weights, 5.0 * NUM_COMPONENTS * pilot.shape[-1])
        mixture = fit_student_mixture(pilot, weights, NUM_COMPONENTS, generator)
    num_first = num_proposals // 10
    draws = torch.cat(
        [mixture.draw(num_proposals - num_first, generator), first.draw(num_first, generator)]
    )
    parts = torch.stack(
        [mixture.log_prob(draws) + math.log(0.9), first.log_prob(draws) + math.log(0.1)]
    )
    log_weights = target(draws) - parts.logsumexp(0)
    estimate = importance_estimate(log_weights)
    index = resample(normalized_weights(log_weights), num_draws, generator)[:, 0]
    vectors = target.whole(draws[index, 0])
    shuffled = torch.randperm(num_draws, generator=generator)
    ess, pareto_k = float(estimate.ess), float(estimate.pareto_k)
    return PopulationDraws(fit, vectors[shuffled], ess, pareto_k, target.likelihood)


def _student(center: Tensor, scale_tril: Tensor) -> StudentMixture:
    """One Student-t distribution."""
    return StudentMixture(
        torch.zeros(1, 1).double(), center.reshape(1, 1, -1), scale_tril[None, None]
    )


class _Posterior:
    """Log posterior density of what varies, up to a constant; shape ``(draw, 1)``."""

    def __init__(
        self, fit: PopulationFit, known: Tensor, tried: Tensor, generator: Generator
    ) -> None:
        self.fit, self.known = fit, known
        self.one = fit.cohort[:1].to(dtype=torch.float64)  # enough for the population's sites
        exact, vectors = fit.likelihood, self.whole(tried[:, 0])
        if self._lost(vectors) > LOST:
            individuals = pooled_individuals(fit, [fit.vector, *vectors[:NUM_WIDENED]], generator)
            exact = make_likelihood(individuals, fit.search.scale)
        self.likelihood: AnyLikelihood = self._interpolated(exact, vectors) or exact
        self.known_each = _EachPopulation(self.likelihood, log_mean)
        self.prior_each = AtEach(self._log_prior, MAX_WEIGHTS // 100)

    def _interpolated(self, exact: Likelihood, vectors: Tensor) -> InterpolatedLikelihood | None:
        """The same interpolated in the shared parameters, if it can be and is close."""
        fit, shared = self.fit, self.fit.structure.coordinates(self.fit.structure.shared)
        if not (
            isinstance(exact, ExactLikelihood)
            and InterpolatedLikelihood.is_possible(fit.individuals)
            and bool(self.known[shared].all())
        ):
            return None
        radius = FARTHEST * fit.covariance.diagonal()[shared].sqrt()
        quick = InterpolatedLikelihood(exact, fit.vector[shared], radius)
        places = [fit.structure.constrain_population(v) for v in vectors]
        with torch.no_grad():
            apart = torch.stack([(quick(p) - exact(p)).sum() for p in places])
        return quick if float(apart.abs().max()) < CLOSE else None

    def _log_prior(self, vector: Tensor) -> Tensor:
        structure = self.fit.structure
        population = structure.constrain_population(vector)
        return structure.log_prior(self.one, population) + structure.log_abs_det(vector)

    def _lost(self, vectors: Tensor) -> float:
        """Mean fall of log ESS from the estimates to other populations, of the worst tenth of the
        individuals.
        """
        constrain = self.fit.structure.constrain_population
        with torch.no_grad():
            here, *there = [
                self.fit.likelihood.moments(constrain(v))[1]
                for v in (self.fit.vector, *vectors[:NUM_WIDENED])
            ]
        fall = torch.stack([here - x for x in there]).nan_to_num(math.inf).mean(0)
        return float(fall.topk(max(1, len(fall) // 10)).values.mean())

    def whole(self, draws: Tensor) -> Tensor:
        """All coordinates, of those that vary."""
        vectors = self.fit.vector.repeat(len(draws), 1)
        vectors[:, self.known] = draws
        return vectors

    def __call__(self, draws: Tensor) -> Tensor:
        vectors = self.whole(draws[:, 0])
        found = self.known_each(vectors).sum(-1) + self.prior_each(vectors)
        return finite_or_zero_weight(found).unsqueeze(1)


class _EachPopulation:
    """What is made of the log weights ``(draw, individual)`` of a likelihood, at many populations:
    shape ``(population, *)``.
    """

    def __init__(self, likelihood: AnyLikelihood, function: Callable[[Tensor], Tensor]) -> None:
        individuals, self.likelihood = likelihood.individuals, likelihood
        structure = individuals.structure
        self.size = max(1, MAX_WEIGHTS // individuals.log_weights.numel())
        if isinstance(likelihood, ExactLikelihood):  # solves dynamics
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
        if not isinstance(self.likelihood, InterpolatedLikelihood):
            return self.within(vectors)
        inside = self.likelihood.covers(vectors)
        parts = [(inside, self.within), (~inside, self.outside)]
        found = [(rows, each(vectors[rows])) for rows, each in parts if bool(rows.any())]
        whole = found[0][1].new_empty(len(vectors), *found[0][1].shape[1:])
        for rows, values in found:
            whole[rows] = values
        return whole
