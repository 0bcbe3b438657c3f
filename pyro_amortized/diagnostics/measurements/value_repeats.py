r"""Whether counts and categories repeat the value before more often than the model says.

With the probability p of the value before under the distribution of a value, the deviation
:math:`1[y_j = y_{j-1}] - p_j(y_{j-1})` has the mean zero given the parameters, also in a Markov
chain. In units of its standard deviation, it is about the score of a part of the values that were
copied from the visit before. Its sums are tested over all values, at single visits (a column that
is there twice, values that are written one visit late) and against the variables of the cohort.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from torch import Tensor

from ...cohort import Cohort
from ..variables.compared_variables import variables_of_design
from ..variables.variable_findings import Finding, Phrases, against_variables
from .residual_analysis import Residuals
from .score_tests import score_statistic


@dataclass(frozen=True)
class RepeatSettings:
    r"""What is compared.

    Args:
        min_at_visit: Fewest individuals with a value at a visit and at the one before.
        min_at_level: The same of a level of a variable.
        least: Smallest probability, so that no rare value decides.
    """

    min_at_visit: int = 20
    min_at_level: int = 5
    least: float = 0.05


DEFAULTS = RepeatSettings()
COPIED = (
    "Look for values that were carried forward, for a visit that is in the file twice, and for "
    "values that are written one visit late; otherwise let a value depend on the one before "
    "(`nlme.MarkovCategories`)."
)


def repeat_findings(
    rows: np.ndarray,
    residuals: Residuals,
    used: Tensor,
    cohort: Cohort,
    scores: np.ndarray | None,
) -> list[Finding]:
    """Values that are equal to the one before too often.

    Args:
        rows: Row of the individual of each value that is used, in the order of their times.
        residuals: Residuals of a series of counts or categories.
        used: Which values are used.
        cohort: The data.
        scores: Scores of the population parameters, shape ``(individual, parameter)``, or None.
    """
    expected, values = residuals.frequencies[used].numpy(), residuals.observed[used].numpy()
    before = np.append(-1, values[:-1]).astype(int)
    known = np.append(False, rows[1:] == rows[:-1]) & (before >= 0) & (before < expected.shape[1])
    places = np.flatnonzero(known)
    if not len(places):
        return []
    p = expected[places, before[places]].clip(DEFAULTS.least, 1 - DEFAULTS.least)
    equal = values[places] == before[places]
    terms = (equal - expected[places, before[places]]) / np.sqrt(p * (1 - p))
    owners = rows[places]
    sums, own = np.bincount(owners, terms, len(cohort)), np.unique(owners)
    test, findings = score_statistic(sums, own, scores), []
    if test is not None:
        words = (
            f"{int(equal.sum())} values are equal to the one before, where "
            f"{expected[places, before[places]].sum():.0f} are expected"
        )
        findings.append(Finding(test.upper, words, COPIED))
    findings += _at_visits(residuals.times[used].numpy()[places], equal, p, owners, cohort)
    words = (
        "values that are equal to the one before are {}, by {} (of the root of their number), {}"
    )
    means = sums[own] / np.sqrt(np.bincount(owners, minlength=len(cohort))[own])
    phrases = Phrases(words, COPIED, ("more frequent", "rarer"))
    return findings + against_variables(means, own, cohort, phrases, levels_only=True)


def _groups(cohort: Cohort) -> list[tuple[str, np.ndarray, int]]:
    """All individuals and those of each level of each variable, in words and as flags, and the
    fewest of them that are compared.
    """
    groups = [("", np.ones(len(cohort), dtype=bool), DEFAULTS.min_at_visit)]
    for variable in variables_of_design(cohort):
        for level in variable.levels:
            where = f", where {variable.name} is {variable.level_name(level)}"
            groups.append((where, variable.values == level, DEFAULTS.min_at_level))
    return groups


def _at_visits(
    times: np.ndarray, equal: np.ndarray, p: np.ndarray, owners: np.ndarray, cohort: Cohort
) -> list[Finding]:
    """The visit, of all individuals or of those of a level, at which the most values are equal to
    the one before. Their number has, at most, the probability of as many successes of trials with
    the same probability.
    """
    found = []
    for where, members, least in _groups(cohort):
        for time in np.unique(times):
            at = (times == time) & members[owners]
            if at.sum() < least:
                continue
            number, mean = int(equal[at].sum()), float(p[at].mean())
            # Of all trials with this mean, equal ones have the largest tail (Hoeffding 1956).
            chance = float(scipy.stats.binom.sf(number - 1, int(at.sum()), mean))
            found.append((chance, float(time), where, number, float(at.sum() * mean)))
    if len(found) < 2:
        return []
    chance, time, where, number, expected = min(found)
    words = (
        f"at the time {time:g}{where}, {number} values are equal to the one before, where "
        f"{expected:.1f} are expected"
    )
    return [Finding(min(1.0, len(found) * chance), words, COPIED)]
