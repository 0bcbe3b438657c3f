r"""How often each category or count occurs, against the model: digits, ends of a scale, a form that
ends.

With the probabilities p of a value given parameters, the deviation :math:`1[y = c] - p_c` of value
c has the mean zero. Summed over the values of an individual, its posterior mean is the score of a
parameter that makes c more frequent, so the sum over the individuals is tested as any score (the
part that the population parameters explain is left out), and the sums of the individuals are
regressed on the variables of the cohort: a rater who uses the ends of the scale only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...model import OutcomeKind, values_by_series
from ...sampling.individuals import IndividualPosteriors


@dataclass(frozen=True)
class FrequencySettings:
    r"""What is compared.

    Args:
        max_values: Most different values: of counts, the smallest ones.
        min_expected: Smallest number that is expected of a value.
    """

    max_values: int = 30
    min_expected: float = 5.0


DEFAULTS = FrequencySettings()


def expected_frequencies(
    individuals: IndividualPosteriors, series: str, places: Tensor, kind: OutcomeKind
) -> Tensor:
    r"""Probabilities of the values 0, 1, ... of a series of categories or counts.

    Args:
        individuals: Individual posteriors.
        series: Name of the series.
        places: Individual parameters, unconstrained, shape ``(draw, individual, latent)``.
        kind: The kind of its values.

    Returns:
        Means over the draws, shape ``(individual, time, number of values)``; no values where they
        are not known, and of continuous values.
    """
    record = individuals.cohort[series]
    known = record.values[record.observed]
    none = torch.zeros(*record.values.shape, 0, dtype=torch.float64)
    is_whole = bool((known == known.round()).all()) and bool((known >= 0).all())
    if kind not in ("count", "category") or not len(known) or not is_whole:
        return none
    columns = []
    for c in range(min(int(known.max()) + 1, DEFAULTS.max_values)):

        def of_value(distribution: Any, value: Tensor, c: int = c) -> Tensor | None:
            try:
                other = torch.full_like(value, float(c))
                log_prob: Tensor = distribution.log_prob(other)
            except (NotImplementedError, AttributeError, ValueError):
                return None
            return log_prob.exp().expand_as(value)

        parts = (individuals.structure, individuals.cohort, places, individuals.population)
        found = values_by_series(*parts, of_value).get(series)
        if found is None:
            return none
        columns.append(found.mean(0))
    return torch.stack(columns, -1)


def compared_values(expected: np.ndarray) -> list[int]:
    """The values that are expected often enough, from probabilities ``(value, number)``."""
    total = expected.sum(0)
    return [c for c in range(expected.shape[1]) if total[c] >= DEFAULTS.min_expected]
