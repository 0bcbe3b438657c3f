"""What random effects are compared with: covariates, the order in the file, doses, recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...cohort import Cohort


@dataclass(frozen=True)
class VariableSettings:
    r"""How a variable is read.

    Args:
        max_levels: Most different whole numbers of a variable that is compared by its levels; one
            with more is a quantity.
        min_in_level: Fewest individuals of a level.
    """

    max_levels: int = 6
    min_in_level: int = 2


DEFAULTS = VariableSettings()


class Variable(NamedTuple):
    r"""A variable with one value per individual.

    Args:
        name: Its name, in words.
        values: Values, shape ``(individual,)``; NaN where it is unknown.
        categories: Names of the levels 0, 1, ..., if they have names.
    """

    name: str
    values: np.ndarray
    categories: Sequence[str] = ()

    def level_name(self, level: float) -> str:
        """The name of a level, or its number."""
        return self.categories[int(level)] if self.categories else f"{level:g}"

    @property
    def levels(self) -> list[float]:
        """The levels of a variable with few different whole numbers; empty for a quantity."""
        known = self.values[np.isfinite(self.values)]
        different, counts = np.unique(known, return_counts=True)
        if len(different) > DEFAULTS.max_levels or not (different == different.round()).all():
            return []
        enough = counts >= DEFAULTS.min_in_level
        levels: list[float] = different[enough].tolist()
        return levels if len(levels) > 1 else []


def variables_of_covariates(cohort: Cohort) -> list[Variable]:
    """The covariates that do not vary over time."""
    named = cohort.categories
    return [
        Variable(name, x.double().numpy(), named.get(name, ()))
        for name, x in cohort.covariates.items()
    ]


def variables_of_design(cohort: Cohort) -> list[Variable]:
    """The variables that were known before any value was recorded: covariates, those that vary over
    time at their first time, the first dose, and the order of the individuals.
    """
    found = variables_of_covariates(cohort)
    for name, series in cohort.time_varying.items():
        if series.values.dim() == 2:
            first = series.observed.double().argmax(1)
            values = series.values.double().gather(1, first.unsqueeze(1))[:, 0]
            unknown = ~series.observed.any(1)
            found.append(Variable(name, values.masked_fill(unknown, torch.nan).numpy()))
    doses = cohort.doses
    if doses is not None and doses.given.shape[1]:
        first = torch.where(doses.given, doses.times.double(), torch.inf).argmin(1)
        amounts = doses.amounts.double().gather(1, first.unsqueeze(1))[:, 0]
        unknown = ~doses.given.any(1)
        found.append(Variable("the first dose", amounts.masked_fill(unknown, torch.nan).numpy()))
    found.append(Variable("the order in the file", np.arange(float(len(cohort)))))
    return [x for x in found if _varies(x)]


def variables_of_recording(cohort: Cohort, names: Sequence[str]) -> list[Variable]:
    """What was recorded of some series: the number of values and the time of the last one."""
    found = []
    for name in names:
        series = cohort[name]
        present = series.present
        number = present.sum(1).double()
        times = torch.where(present, series.times.double(), -torch.inf).amax(1)
        last: Tensor = times.masked_fill(~present.any(1), torch.nan)
        found.append(Variable(f"the number of values of {name!r}", number.numpy()))
        found.append(Variable(f"the last recorded time of {name!r}", last.numpy()))
    return _different([x for x in found if _varies(x)])


def _different(variables: list[Variable]) -> list[Variable]:
    """The variables whose ranks are not those of an earlier one."""
    ranks: list[np.ndarray] = []
    kept = []
    for variable in variables:
        own = np.unique(variable.values, return_inverse=True)[1]
        if not any(np.array_equal(own, x) for x in ranks):
            ranks.append(own)
            kept.append(variable)
    return kept


def _varies(variable: Variable) -> bool:
    known = variable.values[np.isfinite(variable.values)]
    return len(known) > 2 and float(np.ptp(known)) > 0
