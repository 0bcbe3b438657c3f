r"""Is a program what a mixed-effects model must be: the same sites in every run, no randomness but
that of its sites, and individuals that know nothing of each other?

Whatever breaks these rules runs, and gives wrong numbers: training resamples individuals, scores
are taken of some of them at a time.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..cohort import Cohort
from ..errors import ModelError
from ..runtime.isolation import seeded
from ..runtime.random_numbers import make_generator
from ..runtime.solver_context import SolutionCache, caching
from .sites import Assign, run_program
from .structure import ModelStructure

FEW = 3
RELATIVE, ABSOLUTE = 0.02, 0.1  # adaptive solvers of loose tolerance move with their company


def check_same_sites(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    r"""Raise unless two runs have the same sites.

    Raises:
        ModelError: A site is in one of them only, or has another shape.
    """
    for name in [*first, *second]:
        here, there = first.get(name), second.get(name)
        if here is None or there is None or here["value"].shape != there["value"].shape:
            raise ModelError(
                f"The site {name!r} is not the same in two runs of the program (it is missing, or "
                "has another shape).",
                "the same sites in every run.",
                "let no random number or data decide which sites there are; use a parameter that "
                "is zero, or two programs that are compared.",
            )


def check_sound(structure: ModelStructure, cohort: Cohort, seed: int) -> None:
    r"""Raise unless every individual has a density of its own.

    Raises:
        ModelError: A population site is as large as the cohort, the density is another one when
            the program runs once more, or it moves with the other individuals.
    """
    generator = make_generator(seed)
    # Picked at random: the first of a sorted table may be the ones whose density is their own.
    picked = torch.randperm(len(cohort), generator=generator)[:FEW]
    few = cohort[picked] if len(cohort) > 1 else cohort.repeat(2)
    _check_population(structure, few)
    if not structure.has_density:
        return
    population = structure.initial_population()
    draws, others = structure.draw_individuals(few, population, 2, generator).unsqueeze(1)
    with torch.no_grad(), caching(SolutionCache()):
        with seeded(0):  # a solver may choose its method by what it met in an earlier run
            _density(structure, few, draws, population)
        with seeded(1):
            together = _density(structure, few, draws, population)
        with seeded(2):
            again = _density(structure, few, draws, population)
        if not torch.allclose(together, again, 1e-6, 1e-6, equal_nan=True):
            raise ModelError(
                "The program gives two densities for the same values.",
                "no randomness but that of its sites.",
                "draw random numbers by `pyro.sample` (with `infer={'nuisance': True}`, if they "
                "are to be simulated only).",
            )
        for i in range(len(few)):
            _check_alone(structure, few, i, draws, others, population, together[i])


def _check_population(structure: ModelStructure, few: Cohort) -> None:
    """The sites of the population must fit a cohort of any size."""
    wanted = frozenset(structure.population)
    try:
        with seeded(0):
            trace = run_program(structure.model, few, Assign({}), wanted)
    except Exception as error:
        raise _depends(f"fails for {len(few)} of them: {type(error).__name__}: {error}") from error
    for name, site in structure.population.items():
        there = name in trace.nodes
        found = tuple(trace.nodes[name]["value"].shape) if there else "is missing"
        if found != tuple(site.shape):
            raise ModelError(
                f"The population site {name!r} has shape {tuple(site.shape)} with the cohort, and "
                f"{found} with {len(few)} of its individuals.",
                "population sites whose size does not depend on the cohort.",
                f"move {name!r} into the plate, if every individual has one; or pick by a "
                "covariate, `level[cohort.covariates['group'].long()]`.",
            )


def _density(
    structure: ModelStructure, cohort: Cohort, draws: Tensor, population: Mapping[str, Tensor]
) -> Tensor:
    """Both parts, shape ``(individual, 2)``."""
    return torch.stack(list(structure.log_density(cohort, draws, population)), -1)[0]


def _check_alone(
    structure: ModelStructure,
    few: Cohort,
    i: int,
    draws: Tensor,
    others: Tensor,
    population: Mapping[str, Tensor],
    together: Tensor,
) -> None:
    """An individual alone; where its sites are then others (fewer occasions, say), beside others
    with other parameters.
    """
    try:
        found, how = _density(structure, few[[i]], draws[:, [i]], population)[0], "alone"
    except Exception:
        beside = others.clone()
        beside[:, i] = draws[:, i]
        found, how = _density(structure, few, beside, population)[i], "beside changed others"
    finite = found.isfinite() & together.isfinite()
    apart = (found - together).abs() > ABSOLUTE + RELATIVE * together.abs()
    if bool((finite & apart).any()):
        raise _depends(
            f"gives individual {few.ids[i]!r} the log density {float(together.sum()):.6g} beside "
            f"the others and {float(found.sum()):.6g} {how}"
        )


def _depends(what: str) -> ModelError:
    return ModelError(
        f"The density of an individual depends on the other individuals: the program {what}.",
        "individuals that are independent given the population, in the order of the cohort.",
        "compute every individual from its own row; take fixed references (weight / 70), not the "
        "mean of the cohort.",
    )
