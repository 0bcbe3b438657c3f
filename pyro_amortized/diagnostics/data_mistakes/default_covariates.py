"""Yes/no covariates that one group never filled in, so that all of its individuals read "no".

A column with two values has only the lower one at one level of another variable (a site), and both
at every other one. Under a random order of the column, the probability of this is hypergeometric.
A level of a variable with two levels is no reason: no man is pregnant. Nor are several such levels:
arms that were given at some sites only.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.stats

from ...cohort import Cohort
from ..variables.compared_variables import Variable, variables_of_covariates


@dataclass(frozen=True)
class DefaultCovariateSettings:
    r"""What is named.

    Args:
        min_levels: Fewest levels of the other variable.
        min_in_level: Fewest individuals of the other levels that must have both values.
        max_chance: Probability of such a column by chance, times the number of levels that are
            looked at, from which it is not named.
    """

    min_levels: int = 3
    min_in_level: int = 5
    max_chance: float = 0.01


DEFAULTS = DefaultCovariateSettings()


def default_covariates(cohort: Cohort) -> Iterator[str]:
    """What is found, in words.

    Args:
        cohort: The data.
    """
    variables = variables_of_covariates(cohort)
    columns = [v for v in variables if len(np.unique(v.values)) == 2]
    groups = [v for v in variables if len(v.levels) >= DEFAULTS.min_levels]
    number = len(columns) * sum(len(g.levels) for g in groups)
    for column in columns:
        for group in groups:
            level = _level_without(column, group)
            if level is None:
                continue
            chance, low = _chance(column, group.values == level), column.values.min()
            if number * chance < DEFAULTS.max_chance:
                others = (column.values[group.values != level] > low).mean()
                yield (
                    f"the covariate {column.name!r} is {column.level_name(low)} for all "
                    f"{int((group.values == level).sum())} individuals where {group.name} is "
                    f"{group.level_name(level)}, and for {100 * (1 - others):.0f} % elsewhere: it "
                    "may never have been filled in there"
                )


def _level_without(column: Variable, group: Variable) -> float | None:
    """The only level at which a column has its lower value alone, if all others have both."""
    high = column.values > column.values.min()
    without = [v for v in group.levels if not high[group.values == v].any()]
    if len(without) != 1:
        return None
    others = [high[group.values == v] for v in group.levels if v != without[0]]
    mixed = [x for x in others if len(x) >= DEFAULTS.min_in_level]
    is_mixed = len(mixed) > 1 and not any(x.all() for x in mixed)
    return without[0] if is_mixed else None


def _chance(column: Variable, own: np.ndarray) -> float:
    """Probability that a group has the lower value alone."""
    high = int((column.values > column.values.min()).sum())
    return float(scipy.stats.hypergeom.pmf(0, len(own), high, int(own.sum())))
