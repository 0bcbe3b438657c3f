r"""Standardised random effects of the individuals.

With the mean :math:`m_i` and the covariance :math:`S_i` of the individual parameters under the
population and the covariates that the model uses, the standardised random effects are

.. math:: e_{ij} = (u_{ij} - m_{ij}) / \sqrt{S_{ijj}}

in unconstrained coordinates. Under the model, one draw of them from the posterior of each
individual is a draw from the population: the draws of all individuals together have the mean 0 and
the variance 1. Their posterior means have a smaller variance (shrinkage), the reliability

.. math:: r_{ij} = 1 - \operatorname{Var}(u_{ij} \mid y_i) / S_{ijj} .

References:
    Lavielle, Ribba (2016), Enhanced method for diagnosing pharmacometric models: random sampling
    from conditional distributions, Pharmaceutical Research 33.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics.cholesky import factored
from ..runtime.random_numbers import make_generator
from ..sampling.individuals import IndividualPosteriors


@dataclass(frozen=True)
class RandomEffectSettings:
    r"""Accuracy of the standardisation.

    Args:
        num_population: Draws from the population for its means and covariances: their Monte Carlo
            errors are 0.02 standard deviations.
        max_rows: Largest number of these draws times individuals; there are fewer draws in a very
            large cohort, at least the next number.
        min_population: Smallest number of draws from the population.
        num_draws: Draws from the posterior of each individual.
        min_sd: Standard deviation of the population below which a parameter does not vary.
    """

    num_population: int = 2000
    max_rows: int = 2_000_000
    min_population: int = 200
    num_draws: int = 20
    min_sd: float = 1e-9


DEFAULTS = RandomEffectSettings()


class RandomEffects(NamedTuple):
    r"""Standardised random effects. Made by :func:`standardized_effects`.

    Args:
        names: Names of the parameters that vary, in unconstrained coordinates.
        means: Posterior means, shape ``(individual, effect)``.
        reliability: Part of the variance of the population that the data take away, same shape.
        sd: Standard deviations of the population, unconstrained, same shape.
        draws: Equally weighted draws, shape ``(draw, individual, effect)``.
        products: Posterior means of the products of two uncorrelated effects (multiplied by the
            inverse Cholesky factor of the covariance), shape ``(individual, effect, effect)``.
    """

    names: tuple[str, ...]
    means: Tensor
    reliability: Tensor
    sd: Tensor
    draws: Tensor
    products: Tensor


def standardized_effects(individuals: IndividualPosteriors, seed: int = 0) -> RandomEffects:
    r"""The random effects of individuals, standardised by their population.

    Args:
        individuals: Posterior draws.
        seed: Seed of the draws from the population and of the choice of posterior draws.
    """
    generator, cohort = make_generator(seed), individuals.cohort
    num = max(DEFAULTS.min_population, DEFAULTS.max_rows // len(cohort))
    population = individuals.structure.draw_individuals(
        cohort, individuals.population, min(num, DEFAULTS.num_population), generator
    )
    vary = (population.std(0) > DEFAULTS.min_sd).all(0).nonzero()[:, 0]
    population, center = population[..., vary], population[..., vary].mean(0)
    offset = population - center
    covariance = torch.einsum("knd,kne->nde", offset, offset) / len(population)
    sd = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    root = factored(covariance)
    weights = individuals.weights
    draws = individuals.unconstrained[..., vary] - center
    uncorrelated = torch.linalg.solve_triangular(root, draws.unsqueeze(-1), upper=False)[..., 0]
    means = torch.einsum("kn,knd->nd", weights, draws)
    variance = torch.einsum("kn,knd->nd", weights, (draws - means).square())
    picked = individuals.resampled(DEFAULTS.num_draws, generator)[..., vary] - center
    return RandomEffects(
        tuple(individuals.structure.latent_names[j] for j in vary.tolist()),
        means / sd,
        (1 - variance / sd.square()).clamp(0.0, 1.0),
        sd,
        picked / sd,
        torch.einsum("kn,knd,kne->nde", weights, uncorrelated, uncorrelated),
    )
