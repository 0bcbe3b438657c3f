r"""What may be removed: covariate effects, parts of the error, correlations, freed sites.

A parameter leaves a block of three or more correlated ones with all its correlations; a block of
two is removed as a whole. The Wald statistic :math:`\theta^\top C^{-1} \theta` of what becomes zero
promises the rise of -2LL.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...model import Population
from ...model.extended_program import CorrelatedBlock, ErrorPart, Extension, Term
from ...model.freed_parameter import FreedParameter
from ...population.results.fit_result import PopulationFit
from .search_candidates import Candidate, size_of_test, size_without, without
from .search_refits import FittedExtension
from .search_settings import RatioDistribution


class Removal(NamedTuple):
    r"""A term that may be removed.

    Args:
        name: In words.
        extension: What is left.
        start: A population of the smaller model.
        statistic: Wald statistic; NaN where it is not known.
        size: What the distribution of the rise of -2LL depends on.
    """

    name: str
    extension: Extension
    start: Population
    statistic: float
    size: RatioDistribution


def removals_of(current: FittedExtension) -> list[Removal]:
    """All terms that may be removed."""
    found, num = [], len(current.fit.cohort)
    for term in current.extension.terms:
        if isinstance(term, CorrelatedBlock) and len(term.entries) > 2:
            found += [_member(current, term, j) for j in range(len(term.entries))]
        else:
            start = {n: x for n, x in current.fit.estimates.items() if n != term.site}
            found.append(
                Removal(
                    term.name,
                    without(current.extension, term),
                    start,
                    wald_statistic(current.fit, term),
                    size_without(current.extension, term, term.num_parameters, num),
                )
            )
    return found


def _member(current: FittedExtension, block: CorrelatedBlock, member: int) -> Removal:
    """A parameter that leaves a block."""
    kept = [j for j in range(len(block.entries)) if j != member]
    smaller = CorrelatedBlock(tuple(block.entries[j] for j in kept))
    factor = current.fit.estimates[block.site]
    matrix = (factor @ factor.mT)[kept][:, kept]
    start = {n: x for n, x in current.fit.estimates.items() if n != block.site}
    start[smaller.site] = torch.linalg.cholesky(matrix)
    left = without(current.extension, block)
    pairs = [(member, j) for j in kept]
    name = f"correlations of {block.entries[member].name}"
    statistic = _correlation_statistic(current.fit, block, pairs)
    extension = Candidate(smaller).added_to(left)
    leaving = [block.entries[member]]
    size = size_of_test(extension, leaving, len(kept), len(current.fit.cohort))
    return Removal(name, extension, start, statistic, size)


def wald_statistic(fit: PopulationFit, term: Term) -> float:
    """Rise of -2LL that the quadratic promises if a term is left out; NaN for a part of the error,
    whose absence lies at infinity in unconstrained coordinates, and where an estimate has no
    standard error.
    """
    if isinstance(term, ErrorPart):
        return math.nan
    if isinstance(term, CorrelatedBlock):
        size = len(term.entries)
        pairs = [(j, k) for j in range(size) for k in range(j)]
        return _correlation_statistic(fit, term, pairs)
    own = fit.structure.coordinates({term.site})
    return _quadratic_form(distance_from_absence(fit, term), fit.covariance[own][:, own])


def distance_from_absence(fit: PopulationFit, term: Term) -> Tensor:
    """The unconstrained parameters of a term, minus their values in a model without it."""
    value = fit.vector[fit.structure.coordinates({term.site})]
    if isinstance(term, FreedParameter):
        return value - torch.tensor(term.value, dtype=torch.float64)
    return value


def _correlation_statistic(
    fit: PopulationFit, block: CorrelatedBlock, pairs: list[tuple[int, int]]
) -> float:
    """Wald statistic of some correlations of a block, by the delta method."""
    own = fit.structure.coordinates({block.site})
    site = fit.structure.population[block.site]
    rows, columns = (torch.tensor([p[i] for p in pairs]) for i in (0, 1))

    def correlations(flat: Tensor) -> Tensor:
        factor = site.constrain(flat)
        return (factor @ factor.mT)[rows, columns]

    value = correlations(fit.vector[own])
    slope = torch.autograd.functional.jacobian(correlations, fit.vector[own])
    return _quadratic_form(value, slope @ fit.covariance[own][:, own] @ slope.T)


def _quadratic_form(value: Tensor, covariance: Tensor) -> float:
    if not bool(covariance.isfinite().all()):
        return math.nan
    return float(value @ torch.linalg.lstsq(covariance, value.unsqueeze(-1)).solution[:, 0])
