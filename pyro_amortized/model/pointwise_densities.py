r"""What a program says of every single value: its log density, its mean and its standard deviation.

Diagnostics look at values one at a time; everything that estimates takes whole individuals.
"""

from typing import Any

import torch
from torch import Tensor

from ..cohort import Cohort
from .population_parameters import Population
from .sites import (
    Assign,
    has_density,
    individual_first,
    run_program,
    site_log_prob,
    sum_per_individual,
)
from .structure import ModelStructure

MAX_VALUES = 2_000_000


def value_log_probs(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> dict[str, Tensor]:
    r"""Log density of every value given each draw.

    Args:
        structure: The program.
        cohort: N individuals.
        unconstrained: Shape ``(draw, individual, latent)``.
        population: Values of the population sites.

    Returns:
        By series, shape ``(draw, individual, time[, channel])``; what is not recorded has 0. Series
        whose values have a joint law (``MultivariateNormal``) are left out.
    """
    return _of_laws(structure, cohort, unconstrained, population, _log_probs)


def predicted_moments(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> dict[str, Tensor]:
    r"""Mean and standard deviation of every value given each draw.

    Args:
        structure: The program.
        cohort: N individuals.
        unconstrained: Shape ``(draw, individual, latent)``.
        population: Values of the population sites.

    Returns:
        By series, shape ``(draw, individual, time[, channel], 2)``; laws without moments are left
        out.
    """
    return _of_laws(structure, cohort, unconstrained, population, _moments)


def individual_prior_terms(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> dict[str, Tensor]:
    r"""Log density of each individual site given the population, in its support.

    Args:
        structure: The program.
        cohort: N individuals.
        unconstrained: Shape ``(draw, individual, latent)``.
        population: Values of the population sites.

    Returns:
        By site, shape ``(draw, individual)``.
    """
    shape = unconstrained.shape[:2]
    many = cohort.to(dtype=torch.float64).repeat(shape[0])
    assign = Assign(population, structure.individual, unconstrained.double().flatten(0, 1))
    trace = run_program(structure.model, many, assign, frozenset(structure.individual))
    return {
        name: sum_per_individual(site_log_prob(trace.nodes[name]), site.dim, len(many)).reshape(
            shape
        )
        for name, site in structure.individual.items()
    }


def at_limits(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> dict[str, Tensor]:
    r"""Which values stand at a limit where their law is clipped, for anything beyond it.

    Args:
        structure: The program.
        cohort: N individuals.
        unconstrained: Shape ``(draw, individual, latent)``.
        population: Values of the population sites.

    Returns:
        By series, shape ``(draw, individual, time[, channel])``; only series with such a law.
    """
    return _of_laws(structure, cohort, unconstrained, population, _clipped)


def _clipped(site: Any) -> Tensor | None:
    law, _ = _each_value(site["fn"])
    law = getattr(law, "base", law) if not hasattr(law, "limits") else law
    if not hasattr(law, "limits"):
        return None
    low, high = (x.reshape(site["value"].shape) for x in law.limits)
    return (site["value"] <= low) | (site["value"] >= high)


def _of_laws(
    structure: ModelStructure,
    cohort: Cohort,
    unconstrained: Tensor,
    population: Population,
    function: Any,
) -> dict[str, Tensor]:
    cohort = cohort.to(dtype=torch.float64)
    per_copy = sum(cohort[name].values.numel() for name in structure.series)
    parts: dict[str, list[Tensor]] = {}
    for draws in unconstrained.double().split(max(1, MAX_VALUES // max(per_copy, 1))):
        many, (num_draws, num) = cohort.repeat(len(draws)), draws.shape[:2]
        assign = Assign(population, structure.individual, draws.flatten(0, 1))
        with torch.no_grad():
            trace = run_program(structure.model, many, assign)
        for name, site in structure.observed.items():
            found = function(trace.nodes[name])
            if found is not None:
                extra = found.dim() - trace.nodes[name]["value"].dim()
                rows = individual_first(found, site.dim, site.event_dim + extra)
                shape = cohort[site.series].values.shape[1:] + found.shape[found.dim() - extra :]
                parts.setdefault(site.series, []).append(rows.reshape(num_draws, num, *shape))
    return {name: torch.cat(x) for name, x in parts.items()}


def _each_value(law: Any) -> tuple[Any, Tensor | bool]:
    """The law of single values behind events and masks, and its mask."""
    mask: Tensor | bool = True
    while hasattr(law, "base_dist") and not hasattr(law, "transforms"):
        mask = mask & law._mask if hasattr(law, "_mask") else mask
        law = law.base_dist
    return law, mask


def _log_probs(site: Any) -> Tensor | None:
    law, mask = _each_value(site["fn"])
    if law.event_dim or not has_density(site):
        return None
    found = law.log_prob(site["value"])
    masked = mask if site["mask"] is None else mask & _wide(site["mask"], found)
    return torch.where(masked, found, 0.0) if isinstance(masked, Tensor) else found


def _wide(mask: Any, like: Tensor) -> Any:
    """A mask of batch shape against values with an event behind."""
    if not isinstance(mask, Tensor):
        return mask
    return mask.reshape(*mask.shape, *[1] * (like.dim() - mask.dim())).expand_as(like)


def _moments(site: Any) -> Tensor | None:
    law, _ = _each_value(site["fn"])
    law = getattr(law, "base", law)  # before it was censored, truncated, rounded or laid out
    try:
        mean, variance = law.mean, law.variance
    except (NotImplementedError, AttributeError):
        return None
    value = site["value"]
    mean, sd = (
        x.reshape(value.shape) if x.numel() == value.numel() else x.expand_as(value)
        for x in (mean, variance.sqrt())
    )
    return torch.stack([mean, sd], -1)
