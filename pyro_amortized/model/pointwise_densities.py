r"""Log density, mean and standard deviation of every single value.

Diagnostics look at values one at a time. Estimation uses the densities of complete individuals.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..cohort import Cohort
from .outcome_kinds import innermost, is_wrapper, outcome_moments
from .population_parameters import Population
from .program_run import Assign, run_program
from .sites import has_density, individual_first, individual_log_prob, individual_rows
from .structure import ModelStructure

# Observed values in one call of the model: some 100 MB of intermediate results.
MAX_VALUES = 2_000_000
# The same where a function of every distribution gives many numbers for each value.
MAX_VALUES_OF_FUNCTIONS = 200_000


def value_log_probs(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> dict[str, Tensor]:
    r"""Log density of every value given each draw.

    Args:
        structure: The structure of the model.
        cohort: N individuals.
        unconstrained: Shape ``(draw, individual, latent)``.
        population: Values of the population sites.

    Returns:
        By series, shape ``(draw, individual, time[, channel])``; values that were not
        recorded have 0. Series whose values have a joint distribution (``MultivariateNormal``) are
        left out.
    """
    return _by_series(structure, cohort, unconstrained, population, _log_probs)


def log_probs_of_values(structure: ModelStructure, trace: Trace) -> dict[str, Tensor]:
    """As :func:`value_log_probs`, of one run, by series in its shape."""
    found = {}
    for name, site in structure.observed.items():
        log_prob = _log_probs(trace.nodes[name])
        if log_prob is not None:
            found[site.series] = individual_rows(site, log_prob)
    return found


def predicted_moments(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> dict[str, Tensor]:
    r"""Mean and standard deviation of every value given each draw. Arguments as for
    :func:`value_log_probs`.

    Returns:
        By series, shape ``(draw, individual, time[, channel], 2)``; distributions without
        moments are left out.
    """
    return _by_series(structure, cohort, unconstrained, population, _moments)


def site_values(
    structure: ModelStructure,
    cohort: Cohort,
    unconstrained: Tensor,
    population: Population,
    site: str,
    function: Callable[[Any, Tensor], Tensor],
) -> Tensor:
    r"""A function of the distribution and of the recorded values of one observation site.

    Args:
        structure: The structure of the model.
        cohort: N individuals.
        unconstrained: Shape ``(draw, individual, latent)``.
        population: Values of the population sites.
        site: Name of the site, which has no other plate than that of the individuals.
        function: Maps the distribution without masks and events, and the values, to one row per
            individual.

    Returns:
        Shape ``(draw, individual, *)``.
    """
    cohort = cohort.to(dtype=torch.float64)
    parts = []
    for draws in unconstrained.double().split(
        structure.draws_per_call(cohort, MAX_VALUES_OF_FUNCTIONS)
    ):
        repeated = cohort.repeat(len(draws))
        assign = Assign(population, structure.individual, draws.flatten(0, 1))
        with torch.no_grad():
            node = run_program(structure.model, repeated, assign).nodes[site]
            rows = function(innermost(node["fn"]), node["value"])
        parts.append(rows.reshape(*draws.shape[:2], *rows.shape[1:]))
    return torch.cat(parts)


def individual_prior_terms(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> dict[str, Tensor]:
    r"""Log density of each individual site given the population, in its support. Arguments as for
    :func:`value_log_probs`.

    Returns:
        By site, shape ``(draw, individual)``.
    """
    shape = unconstrained.shape[:2]
    repeated = cohort.to(dtype=torch.float64).repeat(shape[0])
    assign = Assign(population, structure.individual, unconstrained.double().flatten(0, 1))
    trace = run_program(structure.model, repeated, assign, frozenset(structure.individual))
    return {
        name: individual_log_prob(site, trace.nodes[name], len(repeated)).reshape(shape)
        for name, site in structure.individual.items()
    }


def at_limits(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> dict[str, Tensor]:
    r"""Which values are at a limit that stands for all values beyond it. Arguments as for
    :func:`value_log_probs`.

    Returns:
        By series, shape ``(draw, individual, time[, channel])``; only series with such a
        distribution.
    """
    return _by_series(structure, cohort, unconstrained, population, _clipped)


def _clipped(site: Any) -> Tensor | None:
    distribution, _ = each_value(site["fn"])
    if not hasattr(distribution, "limits"):  # one that is laid out may have such a base
        distribution = getattr(distribution, "base", None)
    if not hasattr(distribution, "limits"):
        return None
    low, high = (x.reshape(site["value"].shape) for x in distribution.limits)
    return (site["value"] <= low) | (site["value"] >= high)


def values_by_series(
    structure: ModelStructure,
    cohort: Cohort,
    unconstrained: Tensor,
    population: Population,
    function: Callable[[Any, Tensor], Tensor | None],
) -> dict[str, Tensor]:
    r"""A function of the distribution of every single value and of the value.

    Args:
        structure: The structure of the model.
        cohort: N individuals.
        unconstrained: Shape ``(draw, individual, latent)``.
        population: Values of the population sites.
        function: Maps the distribution without masks and events, and the values, to the shape of
            the values, or to None where it has no answer.

    Returns:
        By series, shape ``(draw, individual, time[, channel])``; series without an answer, and
        those whose values have a joint distribution, are left out.
    """

    def of_site(site: Any) -> Tensor | None:
        distribution, _ = each_value(site["fn"])
        return None if distribution.event_dim else function(distribution, site["value"])

    return _by_series(structure, cohort, unconstrained, population, of_site)


def _by_series(
    structure: ModelStructure,
    cohort: Cohort,
    unconstrained: Tensor,
    population: Population,
    function: Any,
) -> dict[str, Tensor]:
    cohort = cohort.to(dtype=torch.float64)
    parts: dict[str, list[Tensor]] = {}
    for draws in unconstrained.double().split(structure.draws_per_call(cohort, MAX_VALUES)):
        repeated, (num_draws, num) = cohort.repeat(len(draws)), draws.shape[:2]
        assign = Assign(population, structure.individual, draws.flatten(0, 1))
        with torch.no_grad():
            trace = run_program(structure.model, repeated, assign)
        for name, site in structure.observed.items():
            result = function(trace.nodes[name])
            if result is not None:
                extra = result.dim() - trace.nodes[name]["value"].dim()
                rows = individual_first(result, site.dim, site.event_dim + extra)
                shape = cohort[site.series].values.shape[1:] + result.shape[result.dim() - extra :]
                parts.setdefault(site.series, []).append(rows.reshape(num_draws, num, *shape))
    return {name: torch.cat(x) for name, x in parts.items()}


def each_value(distribution: Any) -> tuple[Any, Tensor | bool]:
    """The distribution of single values inside events and masks, and its mask."""
    mask: Tensor | bool = True
    while is_wrapper(distribution):
        mask = mask & distribution._mask if hasattr(distribution, "_mask") else mask
        distribution = distribution.base_dist
    return distribution, mask


def _log_probs(site: Any) -> Tensor | None:
    distribution, mask = each_value(site["fn"])
    if distribution.event_dim or not has_density(site):
        return None
    log_prob = distribution.log_prob(site["value"])
    masked = mask if site["mask"] is None else mask & _expanded(site["mask"], log_prob)
    return torch.where(masked, log_prob, 0.0) if isinstance(masked, Tensor) else log_prob


def _expanded(mask: Any, like: Tensor) -> Any:
    """A mask of batch shape, expanded to values that also have event dimensions."""
    if not isinstance(mask, Tensor):
        return mask
    return mask.reshape(*mask.shape, *[1] * (like.dim() - mask.dim())).expand_as(like)


def _moments(site: Any) -> Tensor | None:
    moments = outcome_moments(site["fn"])
    if moments is None:
        return None
    (mean, variance), value = moments, site["value"]
    mean, sd = (
        x.reshape(value.shape) if x.numel() == value.numel() else x.expand_as(value)
        for x in (mean, variance.sqrt())
    )
    return torch.stack([mean, sd], -1)
