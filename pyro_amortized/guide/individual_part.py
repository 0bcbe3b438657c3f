r"""The individual part of a guide, which samples the individual sites."""

from contextlib import ExitStack

import pyro
import torch
from pyro.distributions import Delta
from torch import Tensor

from ..cohort import Cohort
from ..errors import GuideError
from ..model import PLATE, ModelStructure, Population, constrain_individuals
from ..model.individual_priors import individual_priors_at
from ..networks.conditional_flow import FlowDistribution
from ..numerics.broadcasting import concatenated
from ..numerics.gaussians import Gaussians
from .amortized_posterior import AmortizedPosterior
from .newton_posterior import SharpenedPosterior
from .sharpened_distribution import SharpenedDistribution


def sample_individual_part(
    structure: ModelStructure,
    cohort: Cohort,
    population: Population,
    posterior: AmortizedPosterior | SharpenedPosterior,
    shared: Tensor,
    priors: Gaussians | None,
) -> dict[str, Tensor]:
    r"""Sample the individual sites in their plates.

    Args:
        structure: The model.
        cohort: N individuals.
        population: Population parameters by name.
        posterior: The networks.
        shared: Unconstrained shared parameters, shape ``(*draw, shared)``.
        priors: Distributions of the individuals given the population, batch shape ``(*draw,
            individual)``, or None where the networks do not depend on them.

    Returns:
        Values by name.
    """
    sites = structure.individual
    dim = next(iter(sites.values())).dim
    plates = {PLATE: pyro.plate(PLATE, len(cohort), dim=dim)}
    for site in sites.values():
        plates |= {
            name: pyro.plate(name, size, dim=dim)
            for name, size, dim in site.plates
            if name not in plates
        }
    extra = -dim - 1
    distribution = posterior.for_plate(cohort, shared, extra, priors)
    with plates[PLATE]:
        drawn = pyro.sample("_individual_latent", distribution, infer={"is_auxiliary": True})
    rows = drawn.reshape(*drawn.shape[: drawn.dim() - extra - 1], drawn.shape[-1])
    values, jacobians = constrain_individuals(structure, cohort, rows, population)
    result = {}
    for name, site in sites.items():
        with ExitStack() as stack:
            for plate in (PLATE, *(p[0] for p in site.plates)):
                stack.enter_context(plates[plate])
            delta = Delta(
                values[name].to(cohort.dtype),
                log_density=-jacobians[name],
                event_dim=site.event_dim,
            )
            result[name] = pyro.sample(name, delta)
    return result


def log_prob_of_values(
    structure: ModelStructure,
    posterior: FlowDistribution | SharpenedDistribution,
    cohort: Cohort,
    values: Population,
    population: Population,
) -> Tensor:
    r"""Log density of values of the individual sites, shape ``(individual,)``.

    Args:
        structure: The model.
        posterior: Distribution of the unconstrained parameters.
        cohort: N individuals.
        values: Values of all individual sites by name, in the layout of the model.
        population: Population parameters by name.

    Raises:
        GuideError: The value of a site is missing.
    """
    missing = [name for name in structure.individual if name not in values]
    if missing:
        raise GuideError(
            f"The values of {missing} are missing.",
            f"values of all individual sites, {list(structure.individual)}.",
            "add them to `values`.",
        )
    double = cohort.to(dtype=torch.float64)
    known = {name: torch.as_tensor(values[name]).double() for name in structure.individual}
    unconstrained = structure.unconstrain(double, known, population)
    _, jacobian = structure.constrain(double, unconstrained, population)
    log_prob: Tensor = posterior.log_prob(unconstrained) - jacobian
    return log_prob


def priors_of_draws(structure: ModelStructure, cohort: Cohort, population: Population) -> Gaussians:
    r"""Distributions of the individuals given each of several populations.

    Args:
        structure: The model.
        cohort: N individuals.
        population: Population parameters by name, shapes ``(*draw, 1, ..., 1, *site)``, with
            dimensions of size one in the places of the individuals and of inner plates.

    Returns:
        Batch shape ``(*draw, individual)``.
    """
    vectors = _vectors(structure, population)
    rows = vectors.reshape(-1, vectors.shape[-1])
    priors = individual_priors_at(structure, cohort, rows)
    dim = next(iter(structure.individual.values())).dim
    draw_shape = vectors.shape[:-1][: max(0, vectors.dim() - 1 + dim)]
    return priors.reshape(torch.Size([*draw_shape, len(cohort)]))


def _vectors(structure: ModelStructure, population: Population) -> Tensor:
    """Unconstrained coordinates of populations of shape ``(*draw, *site)``, shape ``(*draw,
    coordinate)``.
    """
    sites = structure.population.items()
    return concatenated([site.unconstrain(population[name].double()) for name, site in sites])
