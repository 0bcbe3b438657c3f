r"""Draws of the population parameters, and of the individuals with the population's uncertainty.

Sampling-importance resampling on the collapsed model: draws from a Student-t distribution about the
estimates, with the covariance of the fit, are weighted by

.. math:: p(\Psi)\, \prod_i \hat p(y_i \mid \Psi)

on the draws of the fit, and resampled. Given each draw of the population, one of the draws of every
individual is picked by its weight under that population.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import FitError
from .importance import importance_estimate, normalized_weights, resample
from .isolation import make_generator
from .result import PopulationFit

DEGREES_OF_FREEDOM = 7


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
    scale = torch.linalg.cholesky(fit.covariance[known][:, known])
    law = torch.distributions.MultivariateNormal(torch.zeros(len(scale)).double(), scale_tril=scale)
    noise = torch.randn(num_proposals, len(scale), generator=generator, dtype=torch.float64)
    chi2 = torch.randn(num_proposals, DEGREES_OF_FREEDOM, generator=generator, dtype=torch.float64)
    stretch = (DEGREES_OF_FREEDOM / chi2.pow(2).sum(1, keepdim=True)).sqrt()
    moves = (noise @ scale.T) * stretch
    vectors = fit.vector.repeat(num_proposals, 1)
    vectors[:, known] += moves
    square = -2 * (law.log_prob(moves) - law.log_prob(torch.zeros_like(moves[0])))
    nu, d = DEGREES_OF_FREEDOM, len(scale)
    log_proposal = -(nu + d) / 2 * torch.log1p(square / nu)
    with torch.no_grad():
        log_target = torch.stack([_log_posterior(fit, vector) for vector in vectors])
    log_weights = (log_target - log_proposal).unsqueeze(1)
    estimate = importance_estimate(log_weights)
    index = resample(normalized_weights(log_weights), num_draws, generator)[:, 0]
    return PopulationDraws(fit, vectors[index], float(estimate.ess), float(estimate.pareto_k))


def _log_posterior(fit: PopulationFit, vector: Tensor) -> Tensor:
    structure = fit.structure
    population = structure.constrain_population(vector)
    prior = structure.log_prior(fit.cohort[:1], population) + structure.log_abs_det(vector)
    return fit.log_likelihoods(vector).sum() + prior
