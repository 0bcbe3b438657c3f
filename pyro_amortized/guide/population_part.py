r"""The population part of a guide, which samples the population sites.

It is a normal distribution in unconstrained coordinates, transformed to the supports of the sites;
or any Pyro guide of the user.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import pyro
from pyro.distributions import Delta, MultivariateNormal
from torch import Tensor
from torch.distributions import biject_to

from ..cohort import Cohort
from ..errors import GuideError
from ..model import ModelStructure
from ..numerics.cholesky import factored

# A Pyro guide of the user: it samples the population sites and returns their values by name.
PopulationPart = Callable[..., Any]


def sample_population_part(
    structure: ModelStructure, cohort: Cohort, part: PopulationPart | tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    r"""Sample the population sites.

    Args:
        structure: The model.
        cohort: Its data.
        part: A guide, or mean and Cholesky factor of the normal distribution.

    Returns:
        Values by name; those of ``pyro.param`` sites are taken from the parameter store.

    Raises:
        GuideError: The guide does not return all population sites.
    """
    if not isinstance(part, tuple):
        return _values_of(structure, part(cohort))
    sites = {name: s for name, s in structure.population.items() if not s.is_param}
    store = pyro.get_param_store()
    values: dict[str, Tensor] = {
        name: store[name].detach() if name in store else site.initial
        for name, site in structure.population.items()
        if site.is_param
    }
    if not sites:
        return values
    sampled = structure.coordinates(sites)
    normal = MultivariateNormal(part[0][sampled], scale_tril=_marginal(part[1], sampled))
    vector = pyro.sample("_population_latent", normal, infer={"is_auxiliary": True})
    pieces = vector.split([site.num_unconstrained for site in sites.values()], -1)
    for (name, site), piece in zip(sites.items(), pieces, strict=True):
        transform = biject_to(site.support)
        unconstrained = piece.reshape(piece.shape[:-1] + transform.inverse_shape(site.shape))
        value = transform(unconstrained)
        log_abs_det = transform.log_abs_det_jacobian(unconstrained, value)
        density = -log_abs_det.reshape(*piece.shape[:-1], -1).sum(-1)
        delta = Delta(value.to(cohort.dtype), log_density=density, event_dim=len(site.shape))
        values[name] = pyro.sample(name, delta)
    return {name: values[name] for name in structure.population}


def median_of_population(structure: ModelStructure, cohort: Cohort, part: Any) -> dict[str, Tensor]:
    r"""Medians of the population sites by name.

    Args:
        structure: The model.
        cohort: Its data.
        part: A guide with a method ``median``, or the mean of the normal distribution.
    """
    if isinstance(part, Tensor):
        return structure.constrain_population(part)
    medians = _values_of(structure, part.median(cohort))
    return {name: value.detach().double() for name, value in medians.items()}


def _values_of(structure: ModelStructure, returned: Any) -> dict[str, Tensor]:
    """The values that a guide of the user returned, by population site."""
    names: Collection[str] = structure.population
    params = [n for n, s in structure.population.items() if s.is_param]
    missing = [n for n in names if not (isinstance(returned, Mapping) and n in returned)]
    if missing or params:
        raise GuideError(
            f"The population part does not return {missing or params}.",
            f"a guide that samples {list(names)} and returns their values by name.",
            "expose all population sites, `poutine.block(model, expose=[...])`; `pyro.param` "
            "sites need the guide's own part.",
        )
    return {name: returned[name] for name in names}


def _marginal(scale_tril: Tensor, selected: Tensor) -> Tensor:
    """Cholesky factor of the covariance of the selected coordinates."""
    if bool(selected.all()):
        return scale_tril
    return factored((scale_tril @ scale_tril.T)[selected][:, selected])
