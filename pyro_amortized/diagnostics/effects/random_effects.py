r"""Standardised random effects of the individuals.

With the mean :math:`m_i` and the covariance :math:`S_i` of the individual parameters under the
population and the covariates that the model uses, the standardised random effects are

.. math:: e_{ij} = (u_{ij} - m_{ij}) / \sqrt{S_{ijj}}

in unconstrained coordinates. Under the model, one draw of them from the posterior of each
individual is a draw from the population: the draws of all individuals together have the mean 0 and
the variance 1. Their posterior means have a smaller variance (shrinkage), the reliability

.. math:: r_{ij} = 1 - \operatorname{Var}(u_{ij} \mid y_i) / S_{ijj} .

A distribution that is not normal in unconstrained coordinates (a beta distribution, for instance)
has standardised draws that are not normal either. They are mapped to the normal scores of the
population by its quantiles, beyond which the map is continued as a straight line.

References:
    Lavielle, Ribba (2016), Enhanced method for diagnosing pharmacometric models: random sampling
    from conditional distributions, Pharmaceutical Research 33.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from ...numerics.cholesky import factored
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors


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
        max_excess: Part by which the variance of an individual's posterior may exceed that of the
            population before the mean reliability of several individuals takes the place of their
            own. The Monte Carlo error of a variance is 0.14 of it with 100 effective draws.
        min_alike: Fewest individuals with the same number of recorded values that share a mean.
        share_of_modes: Share of individuals with several modes above which posterior means are not
            taken as normal.
        max_skewness: Skewness of the population from which it counts as not normal: several Monte
            Carlo errors of its draws, and too little to be seen in those of 100 individuals.
        max_kurtosis: Its excess kurtosis, likewise.
        num_quantiles: Quantiles of the map to normal scores.
        tail: Probability of the outermost ones.
    """

    num_population: int = 2000
    max_rows: int = 2_000_000
    min_population: int = 200
    num_draws: int = 20
    min_sd: float = 1e-9
    max_excess: float = 0.3
    min_alike: int = 8
    share_of_modes: float = 0.05
    max_skewness: float = 0.1
    max_kurtosis: float = 0.25
    num_quantiles: int = 201
    tail: float = 5e-4


DEFAULTS = RandomEffectSettings()


class RandomEffects(NamedTuple):
    r"""Standardised random effects. Made by :func:`standardized_effects`.

    Args:
        names: Names of the parameters that vary, in unconstrained coordinates.
        means: Posterior means, shape ``(individual, effect)``.
        reliability: Part of the variance of the population that the data take away, same shape.
        sd: Standard deviations of the population, unconstrained, same shape.
        draws: Equally weighted draws, shape ``(draw, individual, effect)``; normal scores where the
            population is not normal.
        products: Posterior means of the products of two uncorrelated effects (multiplied by the
            inverse Cholesky factor of the covariance), shape ``(individual, effect, effect)``.
        not_normal: Indices of the effects whose posterior means are not normal under the model:
            those of a population that is not normal, and with posteriors of several modes.
        wide: Indices of the effects whose reliabilities are not those of single individuals.
    """

    names: tuple[str, ...]
    means: Tensor
    reliability: Tensor
    sd: Tensor
    draws: Tensor
    products: Tensor
    not_normal: frozenset[int] = frozenset()
    wide: frozenset[int] = frozenset()


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
    reliability = 1 - variance / sd.square()
    # A posterior with two modes may be wider than the population, and its variance then says
    # little about the information of the individual; their mean is still that of the means.
    wide = reliability.amin(0) < -DEFAULTS.max_excess
    number = cohort.num_recorded(individuals.structure.series)
    reliability = torch.where(wide, _shared_reliability(reliability, number), reliability)
    several = float((individuals.num_modes > 1).double().mean()) > DEFAULTS.share_of_modes
    other = [
        j
        for j in range(len(vary))
        if several or bool(wide[j]) or not _is_normal(offset[..., j] / sd[:, j])
    ]
    picked = individuals.resampled(DEFAULTS.num_draws, generator)[..., vary] - center
    return RandomEffects(
        names=tuple(individuals.structure.latent_names[j] for j in vary.tolist()),
        means=means / sd,
        reliability=reliability.clamp(0.0, 1.0),
        sd=sd,
        draws=_normal_scores(picked / sd, offset / sd),
        products=torch.einsum("kn,knd,kne->nde", weights, uncorrelated, uncorrelated),
        not_normal=frozenset(other),
        wide=frozenset(wide.nonzero()[:, 0].tolist()),
    )


def _shared_reliability(reliability: Tensor, number: Tensor) -> Tensor:
    """Means of the reliabilities ``(individual, effect)`` of individuals with as many recorded
    values, or of all where these are few.
    """
    result = reliability.mean(0).expand_as(reliability).clone()
    for n in number.unique():
        own = number == n
        if int(own.sum()) >= DEFAULTS.min_alike:
            result[own] = reliability[own].mean(0)
    return result


def _normal_scores(draws: Tensor, population: Tensor) -> Tensor:
    """Standardised draws ``(draw, individual, effect)``, mapped to normal scores for the effects
    whose standardised population draws are not normal.
    """
    result = draws.clone()
    for j in range(draws.shape[-1]):
        if not _is_normal(population[..., j]):
            pooled = population[..., j].flatten().numpy()
            result[..., j] = torch.as_tensor(_mapped(draws[..., j].numpy(), pooled))
    return result


def _is_normal(standardized: Tensor) -> bool:
    """Whether standardised draws of a population are nearly normal."""
    skewness, kurtosis = (float(standardized.pow(k).mean()) for k in (3, 4))
    return abs(skewness) < DEFAULTS.max_skewness and abs(kurtosis - 3) < DEFAULTS.max_kurtosis


def _mapped(values: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Values by the map of the quantiles of the population to those of a normal distribution."""
    outer = float(scipy.stats.norm.isf(DEFAULTS.tail))
    scores = np.linspace(-outer, outer, DEFAULTS.num_quantiles)
    quantiles = np.quantile(population, scipy.stats.norm.cdf(scores))
    inside = np.interp(values, quantiles, scores)
    # The slope of the outer third of a tail: that of its last quantiles is too noisy.
    third = DEFAULTS.num_quantiles // 6
    for end, inner in ((0, third), (-1, -1 - third)):
        width = max(abs(quantiles[inner] - quantiles[end]), 1e-300)
        slope = abs(scores[inner] - scores[end]) / width
        beyond = values < quantiles[0] if end == 0 else values > quantiles[-1]
        line = scores[end] + slope * (values - quantiles[end])
        inside = np.where(beyond, line, inside)
    return inside
