r"""Checks that the masks of a model are those of the cohort."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..cohort import Cohort, check_indicators
from ..errors import ModelError
from ..runtime.isolation import seeded
from ..runtime.random_numbers import make_generator
from .program_run import Assign, run_program
from .sites import has_density, individual_rows, site_log_prob, site_mask
from .structure import ModelStructure


def check_recorded(structure: ModelStructure, cohort: Cohort) -> None:
    r"""Raise unless the masks of the model are those of the cohort.

    Raises:
        ModelError: A value that was not recorded enters a density, or a recorded one is masked.
    """
    cohort = cohort.to(dtype=torch.float64)
    check_indicators(cohort)
    population = structure.initial_population()
    draws = structure.draw_individuals(cohort, population, 1, make_generator(0))[0]
    with seeded(0):
        first = run_program(
            structure.model, cohort, Assign(population, structure.individual, draws)
        )
        values = {
            name: first.nodes[name]["value"].detach().double().clone().requires_grad_()
            for name in structure.observed
        }
        assign = Assign(population, structure.individual, draws, observations=values)
        trace = run_program(structure.model, cohort, assign)
    for name, site in structure.observed.items():
        node, recorded = trace.nodes[name], cohort[site.series].observed
        mask = torch.as_tensor(site_mask(node)).expand(node["value"].shape)
        masked = ~individual_rows(site, mask)
        grad = None if recorded.all() else _gradient(node, values[name])
        if grad is not None and bool(
            (individual_rows(site, grad.nan_to_num(0.0))[~recorded] != 0).any()
        ):
            raise _not_recorded(node, site.series)
        if site.kind == "category" and not bool(recorded.all()):
            _check_categories(structure, cohort, assign, name)
        if bool((masked & recorded).any()):
            raise ModelError(
                f"The site {name!r} masks {int((masked & recorded).sum())} values that the "
                "cohort declares as recorded.",
                "the mask of the series as the only mask of the observations.",
                "remove them from the cohort with "
                f"`cohort.with_observed({{{site.series!r}: mask}})`.",
            )


def _check_categories(structure: ModelStructure, cohort: Cohort, assign: Assign, name: str) -> None:
    """Raise if other categories in the places that were not recorded change the density, which has
    no gradient in them.
    """
    site = structure.observed[name]
    recorded = cohort[site.series].observed
    known = cohort[site.series].values[recorded]
    if len(known) == 0 or not site.has_density:
        return
    densities = []
    with torch.no_grad(), seeded(0):
        for filler in (known.min(), known.max()):
            rows = torch.where(recorded, cohort[site.series].values, filler)
            value = rows.movedim(0, site.dim - site.event_dim)
            observations = dict(assign.observations) | {name: value}
            other = Assign(assign.population, structure.individual, observations=observations)
            other.pieces = assign.pieces
            node = run_program(structure.model, cohort, other).nodes[name]
            densities.append(site_log_prob(node).sum().nan_to_num())
    if not torch.allclose(densities[0], densities[1]):
        raise _not_recorded(node, site.series)


def _not_recorded(node: Mapping[str, Any], series: str) -> ModelError:
    """The error about values that were not recorded and enter a density."""
    fix = f"write `.mask(cohort[{series!r}].observed)` before `.to_event(1)`."
    if isinstance(node["fn"], torch.distributions.MultivariateNormal):
        fix = (
            "a multivariate normal distribution cannot be masked by value: write "
            "`dist.NanMaskedMultivariateNormal`, with the values "
            f"`torch.where(cohort[{series!r}].observed, values, torch.nan)`."
        )
    return ModelError(
        f"Values of the series {series!r} that were not recorded enter the density of "
        f"{node['name']!r}.",
        "a mask on the observation site.",
        fix,
    )


def _gradient(node: Mapping[str, Any], value: Tensor) -> Tensor | None:
    """Gradient of the log density of a site with respect to its value; None if there is none."""
    if not has_density(node):
        return None
    log_prob = site_log_prob(node).sum()
    if not log_prob.requires_grad:
        return None
    return torch.autograd.grad(log_prob, value, allow_unused=True)[0]
