r"""Draws of the population parameters, and of the individuals with the population's uncertainty.

Sampling-importance resampling on the collapsed model: draws from a Student-t distribution about the
estimates, with the covariance of the fit, are weighted by

.. math:: p(\Psi)\, \prod_i \hat p(y_i \mid \Psi)

on the draws of the fit. A mixture is fitted to them, from which (and a tenth from the first
distribution) the draws come that are weighted and resampled. Given each draw of the population, one
of the draws of every individual is picked by its weight under that population.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import FitError
from .factor import factored
from .importance import (
    effective_sample_size,
    finite_or_zero_weight,
    importance_estimate,
    normalized_weights,
    resample,
)
from .isolation import make_generator
from .mixture import StudentMixture, fit_student_mixture
from .modes import tempered_weights
from .result import PopulationFit

MAX_ROUNDS, ENOUGH, NUM_COMPONENTS = 3, 0.7, 3


@dataclass(frozen=True, eq=False)
class PopulationDraws:
    r"""Posterior draws of the population. Made by :func:`sample_population`.

    Args:
        fit: The fit.
        vectors: Equally weighted draws, unconstrained, shape ``(draw, population)``.
        ess: Effective number of the weighted draws they were picked from.
        pareto_k: Pareto k of the weights; above 0.7 use NUTS on ``marginalize(model, guide)``.
    """

    fit: PopulationFit
    vectors: Tensor
    ess: float
    pareto_k: float

    @property
    def draws(self) -> dict[str, Tensor]:
        """Draws by site, in their support, shape ``(draw, *site)``."""
        return self.fit.structure.constrain_population(self.vectors)

    def log_likelihoods(self) -> Tensor:
        """Log p(y_i | Psi) at every draw, shape ``(draw, individual)``."""
        with torch.no_grad():
            return torch.stack([self.fit.log_likelihoods(vector) for vector in self.vectors])

    def individuals(self, seed: int = 0) -> Tensor:
        """One draw of every individual's parameters per draw of the population, unconstrained,
        shape ``(draw, individual, latent)``.
        """
        generator, fit = make_generator(seed), self.fit
        rows, found = torch.arange(len(fit.cohort)), []
        for vector in self.vectors:
            population = fit.structure.constrain_population(vector)
            weights = normalized_weights(fit.likelihood.log_weights(population))
            picked = resample(weights, 1, generator)[0]
            found.append(fit.individuals.unconstrained[picked, rows])
        return torch.stack(found)

    def individual_sites(self, seed: int = 0) -> dict[str, Tensor]:
        """The same by site, in their support, shape ``(draw, individual, *event)``."""
        structure, cohort = self.fit.structure, self.fit.cohort
        found = [
            structure.constrained_draws(cohort, one[None], structure.constrain_population(vector))
            for one, vector in zip(self.individuals(seed), self.vectors, strict=True)
        ]
        return {name: torch.cat([x[name] for x in found]) for name in structure.individual}


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
    known = fit.estimated
    if not bool(known.any()):
        raise FitError(
            "The fit has no standard errors to draw around.",
            "a fit that converged.",
            "look at `fit.message`, or use NUTS on `marginalize(model, guide)`.",
        )
    generator = make_generator(seed)
    target = _Posterior(fit, known)
    first = _student(fit.vector[known], factored(fit.covariance[known][:, known]))
    mixture = first
    for _ in range(MAX_ROUNDS):
        pilot = mixture.draw(max(100, num_proposals // 4), generator)
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
    return PopulationDraws(fit, vectors[shuffled], float(estimate.ess), float(estimate.pareto_k))


def _student(center: Tensor, scale_tril: Tensor) -> StudentMixture:
    """One Student-t distribution."""
    return StudentMixture(
        torch.zeros(1, 1).double(), center.reshape(1, 1, -1), scale_tril[None, None]
    )


class _Posterior:
    """Log posterior density of what varies, up to a constant; shape ``(draw, 1)``."""

    def __init__(self, fit: PopulationFit, known: Tensor) -> None:
        self.fit, self.known = fit, known

    def whole(self, draws: Tensor) -> Tensor:
        """All coordinates, of those that vary."""
        vectors = self.fit.vector.repeat(len(draws), 1)
        vectors[:, self.known] = draws
        return vectors

    def __call__(self, draws: Tensor) -> Tensor:
        with torch.no_grad():
            values = [_log_posterior(self.fit, vector) for vector in self.whole(draws[:, 0])]
        return finite_or_zero_weight(torch.stack(values)).unsqueeze(1)


def _log_posterior(fit: PopulationFit, vector: Tensor) -> Tensor:
    structure = fit.structure
    population = structure.constrain_population(vector)
    prior = structure.log_prior(fit.cohort[:1], population) + structure.log_abs_det(vector)
    return fit.log_likelihoods(vector).sum() + prior
