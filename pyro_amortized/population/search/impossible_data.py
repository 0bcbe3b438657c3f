r"""Individuals whose data are all but impossible under the start of a fit.

A wrong unit or a misplaced decimal point makes the log likelihood of one individual lower than
those of the others by many thousands. The likelihood then has its maximum, if any, at a population
that describes nobody: in theophylline with one value times 30, the mean of log clearance went to
216. The fit ends before it begins, with the name of the individual.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import FitError
from ..likelihood.likelihood_interface import Drawn


@dataclass(frozen=True)
class ImpossibilitySettings:
    """When the data of an individual are all but impossible, beside those of the others."""

    # Deficit: how far the log likelihood per recorded value of an individual is below the highest
    # of the cohort, times the number of its values. It is 16,000 for theophylline with one value
    # times 30; with the value times 10 the fit converges.
    min_deficit: float = 10_000.0
    # The deficit per value as a multiple of the median one: far from the maximum all are large, and
    # an individual with thousands of values has a low log likelihood without being unusual.
    min_ratio: float = 100.0
    # Individuals that are named.
    max_named: int = 5


IMPOSSIBILITY = ImpossibilitySettings()


def impossible_individuals(log_likelihood: Tensor, num_values: Tensor) -> Tensor:
    """Indices of the individuals, the worst first.

    Args:
        log_likelihood: Shape ``(individual,)``.
        num_values: Number of recorded values of each individual, same shape.
    """
    num_values = num_values.clamp(min=1)
    per_value = log_likelihood.nan_to_num(-torch.inf, torch.inf, -torch.inf) / num_values
    deficit = per_value.max() - per_value
    is_large = deficit * num_values > IMPOSSIBILITY.min_deficit
    is_unusual = deficit > IMPOSSIBILITY.min_ratio * deficit.median()
    order = deficit.argsort(descending=True)
    return order[(is_large & is_unusual)[order]]


def impossible_rows(individuals: Drawn) -> Tensor:
    """Indices of the individuals of some draws whose data are all but impossible."""
    num_values = individuals.cohort.num_recorded(individuals.structure.series)
    return impossible_individuals(individuals.marginal_estimate.log_mean, num_values)


def check_possible(individuals: Drawn) -> None:
    r"""Raise if the data of some individuals are all but impossible at the population of the draws.

    Raises:
        FitError: There are such individuals; the message names them.
    """
    rows = impossible_rows(individuals)
    if len(rows) == 0:
        return
    log_likelihood, ids = individuals.marginal_estimate.log_mean, individuals.cohort.ids
    named = ", ".join(
        f"{ids[i]} (log likelihood {float(log_likelihood[i]):,.0f})"
        for i in rows[: IMPOSSIBILITY.max_named].tolist()
    )
    more = " ..." if len(rows) > IMPOSSIBILITY.max_named else ""
    raise FitError(
        f"The data of {len(rows)} of {len(ids)} individuals are all but impossible at the start of "
        f"the fit: {named}{more}; the median is {float(log_likelihood.median()):,.0f}.",
        "data that the model can explain with some individual parameters.",
        "look for a wrong unit, a misplaced decimal point or a wrong dose in the records of these "
        "individuals (`diagnostics.check_data`); leave them out, or use a residual error with "
        "heavier tails (`StudentT`). If the data are right, pass another `start=`.",
    )
