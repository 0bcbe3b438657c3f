r"""Sites that a mixed-effects model cannot have, each with its message."""

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch

from ..errors import ModelError
from .sites import plain_support


def refuse_factors(node: Mapping[str, Any]) -> None:
    """Terms of the density that no distribution can simulate."""
    if node["type"] != "param" and isinstance(node["fn"], dist.Unit):
        raise ModelError(
            f"The model has the factor {node['name']!r} (`pyro.factor`).",
            "terms of the density that are distributions of sites, because data are simulated "
            "from them.",
            "write the term as a distribution with `sample` and `log_prob` and observe a series "
            "with it; a constraint of a parameter is the support of its prior.",
        )
    if node["type"] != "param" and not (torch.as_tensor(node["scale"]) == 1).all():
        raise ModelError(
            f"The density of the site {node['name']!r} is scaled (`poutine.scale`).",
            "unscaled densities: simulated data do not know the scale, and a scaled likelihood is "
            "none.",
            "leave the scale out; an individual that counts twice is in the cohort twice.",
        )


def refuse_discrete(node: Mapping[str, Any]) -> None:
    """Latent sites whose values are counted."""
    if plain_support(node["fn"]).is_discrete:
        raise ModelError(
            f"The latent site {node['name']!r} is discrete ({type(node['fn']).__name__}).",
            "latent sites of continuous support.",
            "sum over its values (for instance by dist.MixtureSameFamily), or make it a continuous "
            "parameter.",
        )


def refuse_points(node: Mapping[str, Any]) -> None:
    """Latent sites with one possible value, which have no density beside it."""
    if is_point(node):
        raise ModelError(
            f"The latent site {node['name']!r} has one possible value (`Delta`).",
            "latent sites with a density.",
            "compute the value without a site, or keep it by `pyro.deterministic`; hold a "
            "population parameter by `fit_population(..., fixed={...})`.",
        )


def is_point(node: Mapping[str, Any]) -> bool:
    """Whether the distribution of a site has one possible value."""
    distribution = node["fn"]
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, dist.Delta)


def reparameterized(name: str) -> ModelError:
    """The error about a site that a handler computes from other sites."""
    return ModelError(
        f"The site {name!r} is computed from another one (`poutine.reparam`, for instance with "
        "`LocScaleReparam`).",
        f"{name!r} with its own distribution: its density is needed.",
        "leave the handler out, because the fit does not need it; or write the other site in the "
        "model, `eta = pyro.sample('eta', dist.Normal(0, 1))`, and compute with it.",
    )
