"""Positive covariates that are far larger or smaller in one group, or in a few individuals.

Creatinine of one site is in micromoles per litre, and in milligrams per decilitre at all others; a
few weights lack their decimal point. The model need not use the covariate. A group is named if its
values and those of all others do not overlap, lie a factor apart, and no two other groups do: sites
of children and of adults that differ by less, or arms of different doses, are designs. A few
individuals are named if the gap to all others is wider than the range of the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...cohort import Cohort
from ...runtime.short_lists import first_few
from ..variables.compared_variables import Variable, variables_of_covariates


@dataclass(frozen=True)
class CovariateUnitSettings:
    r"""What is named.

    Args:
        min_levels: Fewest levels of the other variable.
        min_in_level: Fewest individuals of a level.
        min_factor: Ratio of the medians from which a level is named.
        min_gap: Factor from the values of a few individuals to all others from which they are
            named, if it is larger than that between the largest and the smallest of the others.
        min_individuals: Fewest individuals of a cohort in which a few are named: among ten, the gap
            of a long tail is wider than the range of the others in 1 to 3 % of the covariates, and
            in 0.4 % at most among 24.
        min_few: Fewest of them; single ones are compared with a normal distribution elsewhere.
        max_share: Their largest share.
        max_named: Most individuals that are named.
    """

    min_levels: int = 3
    min_in_level: int = 4
    min_factor: float = 8.0
    min_gap: float = 3.0
    min_individuals: int = 20
    min_few: int = 2
    max_share: float = 0.2
    max_named: int = 5


DEFAULTS = CovariateUnitSettings()


def covariate_units(cohort: Cohort) -> Iterator[str]:
    """What is found, in words.

    Args:
        cohort: The data.
    """
    variables = variables_of_covariates(cohort)
    groups = [v for v in variables if len(v.levels) >= DEFAULTS.min_levels]
    for quantity in variables:
        if quantity.levels or quantity.categories or not (quantity.values > 0).all():
            continue
        of_groups = [words for group in groups for words in _of_group(quantity, group)]
        yield from of_groups or _of_few(quantity, cohort.ids)


def _of_group(quantity: Variable, group: Variable) -> Iterator[str]:
    """The level whose values lie apart from those of all others, if there is only one."""
    logs = np.log(quantity.values)
    apart = []
    for level in group.levels:
        own, others = logs[group.values == level], logs[group.values != level]
        distance = abs(np.median(own) - np.median(others))
        is_disjoint = own.min() > others.max() or own.max() < others.min()
        enough = min(len(own), len(others)) >= DEFAULTS.min_in_level
        if enough and is_disjoint and distance > np.log(DEFAULTS.min_factor):
            apart.append((level, own, others))
    if len(apart) == 1:
        level, own, others = apart[0]
        inside, outside = (f"{np.exp(x.min()):.3g} to {np.exp(x.max()):.3g}" for x in (own, others))
        yield (
            f"the covariate {quantity.name!r} is {inside} where {group.name} is "
            f"{group.level_name(level)} and {outside} elsewhere: another unit?"
        )


def _of_few(quantity: Variable, ids: tuple[str, ...]) -> Iterator[str]:
    """A few individuals on one side of a wide gap."""
    order = np.argsort(quantity.values)
    logs = np.log(quantity.values[order])
    most = int(DEFAULTS.max_share * len(logs)) if len(logs) >= DEFAULTS.min_individuals else 0
    for few in range(DEFAULTS.min_few, most + 1):
        for own, others in ((slice(-few, None), slice(-few)), (slice(few), slice(few, None))):
            gap = max(logs[own].min() - logs[others].max(), logs[others].min() - logs[own].max())
            if gap > max(np.log(DEFAULTS.min_gap), np.ptp(logs[others])):
                labels = first_few([ids[i] for i in sorted(order[own])], DEFAULTS.max_named)
                inside, outside = (
                    f"{np.exp(logs[x].min()):.3g} to {np.exp(logs[x].max()):.3g}"
                    for x in (own, others)
                )
                yield (
                    f"the covariate {quantity.name!r} is {inside} for {few} individuals ({labels}) "
                    f"and {outside} for the others: another unit?"
                )
                return
