r"""The individual part of a guide, which samples the individual sites."""

from contextlib import ExitStack

import pyro
from pyro.distributions import Delta
from torch import Tensor

from ..cohort import Cohort
from ..model import PLATE, ModelStructure, Population, constrain_individuals
from ..numerics.gaussians import Gaussians
from .amortized_posterior import AmortizedPosterior
from .newton_posterior import SharpenedPosterior


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
