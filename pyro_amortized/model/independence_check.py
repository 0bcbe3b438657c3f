r"""Checks that a model treats its individuals independently.

A mixed-effects model has the same sites in every run, no random numbers except those of its sites,
and individuals that are independent given the population. A model that breaks these rules runs
without an error and gives wrong results, because training resamples individuals and densities are
computed for some of them at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..cohort import Cohort
from ..errors import AmortizedError, ModelError
from ..runtime.isolation import seeded
from ..runtime.random_numbers import make_generator
from ..runtime.solver_context import SolutionCache, caching
from .program_run import Assign, run_program
from .sites import PLATE
from .structure import ModelStructure


@dataclass(frozen=True)
class IndependenceSettings:
    r"""How independence is checked.

    Args:
        num_individuals: Individuals, taken at random, that are compared with themselves alone.
        relative: Largest accepted relative difference of a log density. An adaptive solver with a
            loose tolerance takes other steps in another batch.
        absolute: Largest accepted absolute difference, for the same reason.
        repeated: Largest accepted difference, relative and absolute, of two equal calls.
    """

    num_individuals: int = 3
    relative: float = 0.02
    absolute: float = 0.1
    repeated: float = 1e-6


DEFAULTS = IndependenceSettings()


def check_same_sites(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    r"""Raise unless two runs have the same sites.

    Raises:
        ModelError: A site is in one of them only, or has another shape.
    """
    for name in [*first, *second]:
        site, other = first.get(name), second.get(name)
        if site is None or other is None or site["value"].shape != other["value"].shape:
            raise ModelError(
                f"The site {name!r} differs between two runs of the model: it is missing, or has "
                "another shape.",
                "the same sites in every run.",
                "do not let random numbers or data decide which sites there are; use a parameter "
                "that is zero, or compare two models.",
            )


def check_independence(structure: ModelStructure, cohort: Cohort, seed: int) -> None:
    r"""Raise unless every individual has a density of its own.

    Raises:
        ModelError: The model fails with some of the individuals, a population site is as large as
            the cohort, the density differs between two runs, or it depends on the other
            individuals.
    """
    generator = make_generator(seed)
    # Random individuals, because in a sorted table only the later ones may depend on others.
    rows = torch.randperm(len(cohort), generator=generator)[: DEFAULTS.num_individuals]
    sample = cohort[rows] if len(cohort) > 1 else cohort.repeat(2)
    _check_population(structure, sample)
    _check_run(structure, sample)
    if not structure.has_density:
        return
    population = structure.initial_population()
    draws, others = structure.draw_individuals(sample, population, 2, generator).unsqueeze(1)
    with torch.no_grad(), caching(SolutionCache()):
        with seeded(0):  # a solver may choose its method by what happened in an earlier run
            _density(structure, sample, draws, population)
        with seeded(1):
            together = _density(structure, sample, draws, population)
        with seeded(2):
            repeated = _density(structure, sample, draws, population)
        accepted = (DEFAULTS.repeated, DEFAULTS.repeated)
        if not torch.allclose(together, repeated, *accepted, equal_nan=True):
            raise ModelError(
                "The model gives two different densities for the same values.",
                "no random numbers except those of its sites.",
                "draw random numbers by `pyro.sample`, with `infer={'nuisance': True}` if they "
                "should only be simulated.",
            )
        for i in range(len(sample)):
            _check_alone(structure, sample, i, draws, others, population, together[i])


def _check_run(structure: ModelStructure, sample: Cohort) -> None:
    """The model must run with some of the individuals, as it does with all."""
    failed: Exception | None = None
    for trial in range(2):  # a single value of a draw from the prior is no fault of the model
        try:
            with torch.no_grad(), seeded(trial):
                _check_plate(structure, sample)
                trace = run_program(structure.model, sample, Assign({}))
            _check_sizes(structure, trace, len(sample))
            return
        except AmortizedError:
            raise
        except Exception as error:
            failed = error
    raise ModelError(
        f"The model fails with {len(sample)} of the individuals: {type(failed).__name__}: {failed}",
        "what belongs to individuals in the argument of the model, a cohort: the library calls the "
        "model with some of them, in any order.",
        "read values, times and covariates from the cohort and not from variables outside of the "
        "model (`Cohort(..., covariates={'x': x})`); with `pa.adapt`, `arguments=` uses the cohort "
        "that it is given.",
    ) from failed


def _check_sizes(structure: ModelStructure, trace: Trace, num: int) -> None:
    """Every observation site must observe the values of the cohort of this call."""
    for name, site in structure.observed.items():
        value = trace.nodes[name]["value"]
        found = value.shape[site.dim - site.event_dim]
        if found != num:
            raise ValueError(f"{name!r} observes the values of {found} individuals")


def _check_plate(structure: ModelStructure, sample: Cohort) -> None:
    """The plate of the individuals must have the size of any cohort."""
    with seeded(0):
        trace = run_program(structure.model, sample, Assign({}), frozenset(structure.individual))
    for name in structure.individual:
        for frame in trace.nodes[name]["cond_indep_stack"]:
            if frame.name == PLATE and frame.size != len(sample):
                raise ModelError(
                    f"The plate {PLATE!r} has {frame.size} members for {len(sample)} of the "
                    "individuals.",
                    "the size of the cohort that the model is called with: the library calls it "
                    "with some of the individuals, and with copies of them.",
                    f"write `with pyro.plate({PLATE!r}, len(cohort)):`.",
                )


def _check_population(structure: ModelStructure, sample: Cohort) -> None:
    """The population sites must have the same shape for a cohort of any size."""
    wanted = frozenset(structure.population)
    try:
        with seeded(0):
            trace = run_program(structure.model, sample, Assign({}), wanted)
    except Exception as error:
        raise _depends(
            f"fails for {len(sample)} of them: {type(error).__name__}: {error}"
        ) from error
    for name, site in structure.population.items():
        exists = name in trace.nodes
        shape = tuple(trace.nodes[name]["value"].shape) if exists else "is missing"
        if shape != tuple(site.shape):
            raise ModelError(
                f"The population site {name!r} has shape {tuple(site.shape)} with the cohort, and "
                f"{shape} with {len(sample)} of its individuals.",
                "population sites whose size does not depend on the cohort.",
                f"move {name!r} into the plate if every individual has its own value, or index by "
                "a covariate, `level[cohort.covariates['group'].long()]`.",
            )


def _density(
    structure: ModelStructure, cohort: Cohort, draws: Tensor, population: Mapping[str, Tensor]
) -> Tensor:
    """Log density of observations and of individual parameters, shape ``(individual, 2)``."""
    return torch.stack(list(structure.log_density(cohort, draws, population)), -1)[0]


def _check_alone(
    structure: ModelStructure,
    sample: Cohort,
    i: int,
    draws: Tensor,
    others: Tensor,
    population: Mapping[str, Tensor],
    together: Tensor,
) -> None:
    """Compare an individual with itself alone.

    If the model cannot run for it alone (it may then have fewer occasions), the other individuals
    get other parameters instead.
    """
    try:
        density, how = _density(structure, sample[[i]], draws[:, [i]], population)[0], "alone"
    except Exception:
        changed = others.clone()
        changed[:, i] = draws[:, i]
        density = _density(structure, sample, changed, population)[i]
        how = "when their parameters change"
    finite = density.isfinite() & together.isfinite()
    tolerance = DEFAULTS.absolute + DEFAULTS.relative * together.abs()
    differs = (density - together).abs() > tolerance
    if bool((finite & differs).any()):
        raise _depends(
            f"gives individual {sample.ids[i]!r} the log density {float(together.sum()):.6g} with "
            f"the others and {float(density.sum()):.6g} {how}"
        )


def _depends(what: str) -> ModelError:
    return ModelError(
        f"The density of an individual depends on the other individuals: the model {what}.",
        "individuals that are independent given the population, in the order of the cohort.",
        "compute every individual from its own row, and use fixed references (weight / 70), not "
        "the mean of the cohort.",
    )
