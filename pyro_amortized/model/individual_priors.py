r"""The distribution of each individual's parameters given the population.

The population parameters and the covariates of an individual give the distribution
:math:`p(u_i \mid \Psi, x_i)` of its unconstrained parameters. For most models it is normal; its
mean and covariance then follow exactly from the log density at a few points, whatever the program
looks like (covariate effects, correlations, occasions). Otherwise its moments are those of draws.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cohort import Cohort
from ..numerics.cholesky import factored
from ..numerics.gaussians import Gaussians
from ..numerics.newton_steps import stencil
from ..numerics.vectorized_map import AtEach
from ..runtime.random_numbers import make_generator
from .population_parameters import Population
from .structure import ModelStructure


@dataclass(frozen=True)
class PriorSettings:
    r"""How the distributions are computed.

    Args:
        num_draws: Draws whose moments are used where a distribution is not normal; their means are
            then known to a twentieth of a standard deviation, far less than a guide needs.
        check_distance: Distance from the mean, in standard deviations, of the points at which the
            log density is compared with the normal one.
        tolerance: Largest difference of the log densities, in nats, that counts as rounding.
        max_values: Points times individuals times populations in one call, which limits memory.
    """

    num_draws: int = 400
    check_distance: float = 2.0
    tolerance: float = 1e-4
    max_values: int = 200_000


SETTINGS = PriorSettings()


def individual_priors(
    structure: ModelStructure, cohort: Cohort, population: Population
) -> Gaussians:
    r"""Mean and covariance of the parameters of each individual, given the population.

    Args:
        structure: The model.
        cohort: N individuals.
        population: Values of the population sites.

    Returns:
        Normal distributions of the unconstrained parameters with batch shape ``(individual,)``,
        in float64. Where the distribution of the model is not normal, its moments.
    """
    with torch.no_grad():
        double = {name: x.double() for name, x in population.items()}
        vector = structure.unconstrain_population(double)
        priors = individual_priors_at(structure, cohort, vector.unsqueeze(0))
        return priors.map(lambda x: x[0])


def individual_priors_at(structure: ModelStructure, cohort: Cohort, vectors: Tensor) -> Gaussians:
    r"""The same at several populations.

    Args:
        structure: The model.
        cohort: N individuals.
        vectors: Unconstrained population parameters, shape ``(population, coordinate)``.

    Returns:
        Batch shape ``(population, individual)``; differentiable where the distributions of the
        model are normal.
    """
    anchor = complete_individual(structure, cohort, structure.initial_population())
    complete = cohort[torch.cat([torch.arange(len(cohort)), anchor])] if len(anchor) else cohort
    double, d = complete.to(dtype=torch.float64), structure.num_latent
    points = torch.cat([stencil(d), SETTINGS.check_distance * _axes(d)])

    def normal_at(vector: Tensor) -> Tensor:
        return _normal_or_nan(structure, double, points, vector)

    if vectors.requires_grad and torch.is_grad_enabled():
        result = torch.stack([normal_at(vector) for vector in vectors])
    else:
        size = SETTINGS.max_values // (len(points) * len(complete))
        result = AtEach(normal_at, size)(vectors)
    priors = Gaussians(result[..., 0], result[..., 1:])
    unknown = ~priors.loc.isfinite().all(-1).all(-1)
    if bool(unknown.any()):
        loc, scale_tril = priors.loc.clone(), priors.scale_tril.clone()
        for row in unknown.nonzero()[:, 0].tolist():
            population = structure.constrain_population(vectors[row])
            with torch.no_grad():
                loc[row], scale_tril[row] = _moments(structure, double, population)
        priors = Gaussians(loc, scale_tril)
    return priors.map(lambda x: x[:, : len(cohort)])


def complete_individual(
    structure: ModelStructure, cohort: Cohort, population: Population
) -> Tensor:
    """Index of an individual that has all random effects, shape ``(1,)``; empty where it is not
    needed.

    A plate inside the individuals may be as large as the individuals of a call need (occasions).
    This individual is added to every part of the cohort, so that the plate keeps its size.
    """
    if any(site.plates for site in structure.individual.values()):
        generator = make_generator(0)
        for row in range(len(cohort)):
            draws = structure.draw_individuals(cohort[row : row + 1], population, 1, generator)
            if draws.shape[-1] == len(structure.latent_names):
                return torch.tensor([row])
    return torch.zeros(0, dtype=torch.long)


def _axes(num_dims: int) -> Tensor:
    """Unit vectors and their negatives, shape ``(point, num_dims)``."""
    eye = torch.eye(num_dims, dtype=torch.float64)
    return torch.cat([eye, -eye])


def _normal_or_nan(
    structure: ModelStructure, cohort: Cohort, points: Tensor, vector: Tensor
) -> Tensor:
    """Mean and scale of a normal distribution, shape ``(individual, latent, 1 + latent)``; NaN
    where the distribution is not normal.
    """
    population, d = structure.constrain_population(vector), structure.num_latent

    def density(prior: Gaussians) -> Tensor:
        moved = prior.loc + torch.einsum("nij,kj->kni", prior.scale_tril, points)
        return structure.log_individual(cohort, moved, population)

    standard = Gaussians(
        torch.zeros(len(cohort), d, dtype=torch.float64),
        torch.eye(d, dtype=torch.float64).expand(len(cohort), d, d),
    )
    # A quadratic is found exactly from any place; the second step removes the rounding of the
    # first, whose place may be many standard deviations away.
    prior = _one_step(density, standard)
    prior = _one_step(density, prior)
    values = density(prior)
    expected = -0.5 * points.pow(2).sum(-1, keepdim=True)
    error = (values - values[:1] - expected).abs().amax()
    result = torch.cat([prior.loc.unsqueeze(-1), prior.scale_tril], -1)
    return torch.where(error < SETTINGS.tolerance, result, torch.nan)


def _one_step(density: Callable[[Gaussians], Tensor], prior: Gaussians) -> Gaussians:
    """The normal distribution whose log density has the curvature at a place."""
    d = prior.loc.shape[-1]
    values = density(prior)
    forwards, backwards, pairs = (values[1:] - values[:1])[: 2 * d + d * (d - 1) // 2].split(
        [d, d, d * (d - 1) // 2]
    )
    gradient = (forwards - backwards).T / 2
    diagonal = torch.diag_embed((forwards + backwards).T)
    row, column = torch.tril_indices(d, d, -1)
    mixed = (pairs - forwards[row] - forwards[column]).T
    lower = torch.zeros(d * d, len(row), dtype=torch.float64)
    lower[row * d + column, torch.arange(len(row))] = 1.0
    below = (mixed @ lower.T).reshape(*mixed.shape[:-1], d, d)
    precision = -(diagonal + below + below.transpose(-1, -2))
    covariance = torch.linalg.inv_ex(precision)[0]
    move = (covariance @ gradient.unsqueeze(-1)).squeeze(-1)
    loc = prior.loc + (prior.scale_tril @ move.unsqueeze(-1)).squeeze(-1)
    outer = prior.scale_tril @ covariance @ prior.scale_tril.transpose(-1, -2)
    factor, info = torch.linalg.cholesky_ex((outer + outer.transpose(-1, -2)) / 2)
    return Gaussians(loc, torch.where((info == 0)[..., None, None], factor, torch.nan))


def _moments(structure: ModelStructure, cohort: Cohort, population: Population) -> Gaussians:
    """Moments of draws, the same at every call."""
    draws = structure.draw_individuals(cohort, population, SETTINGS.num_draws, make_generator(0))
    loc = draws.mean(0)
    centered = draws - loc
    covariance = torch.einsum("kni,knj->nij", centered, centered) / (len(draws) - 1)
    return Gaussians(loc, factored(covariance))
