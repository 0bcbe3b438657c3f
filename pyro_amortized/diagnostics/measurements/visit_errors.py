r"""Whether the values of a group deviate at single visits: groups against visits.

A box of samples of one site that thawed, a second device that one site uses at every other visit, a
clock of a site, a treatment that acts for a while in one arm: the values of a level of a variable
deviate at some visits, in either direction, so that neither their level nor their trend differs.

The normal scores of the prediction errors of a level are compared with those of all others at each
visit. Under the model the differences z, in their standard errors, are independent and about
standard normal. The largest of them (a single visit) and the sum of their squares (several) are
tested.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.stats

from ...cohort import Cohort
from ..variables.compared_variables import Variable, variables_of_design
from ..variables.variable_findings import Finding
from ..variables.variable_tests import normal_scores


@dataclass(frozen=True)
class VisitSettings:
    r"""What is compared.

    Args:
        max_visits: Most visits; further times are in groups of about equal size.
        min_at_visit: Fewest values of a level at a visit.
        min_others: Fewest values of all others.
    """

    max_visits: int = 12
    min_at_visit: int = 5
    min_others: int = 8


DEFAULTS = VisitSettings()
ADVICE = (
    "Look for samples, a device or a clock that were not those of the others at this time, and for "
    "an effect that comes and goes in the group."
)


def visit_findings(
    rows: np.ndarray, times: np.ndarray, errors: np.ndarray, cohort: Cohort
) -> list[Finding]:
    """The comparison for every variable with levels, and for the halves of the file.

    Args:
        rows: Row of the individual of each value.
        times: Times of the values.
        errors: Prediction errors, independent under the model.
        cohort: The data.
    """
    visits, scores = _visits(rows, times), normal_scores(errors)
    half = (np.arange(len(cohort)) >= (len(cohort) + 1) // 2).astype(float)
    variables = [v for v in variables_of_design(cohort) if v.levels]
    variables.append(Variable("the half of the file", half, ("first", "second")))
    findings = []
    for variable in variables:
        several = len(variable.levels) > 2
        levels = variable.levels if several else variable.levels[1:]
        known = np.isin(variable.values[rows], variable.levels)
        tests: list[Finding] = []
        for level in levels:
            own = variable.values[rows] == level
            where = f"where {variable.name} is {variable.level_name(level)}"
            tests += _of_level(own, known & ~own, visits, times, scores, where)
        if tests:
            best = min(tests)
            findings.append(best._replace(p_value=min(1.0, len(tests) * best.p_value)))
    return findings


def _visits(rows: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Number of the visit of each value: as many as an individual has values, of about equal size;
    equal times are one visit.
    """
    mean = len(rows) / len(np.unique(rows))
    most = int(np.clip(round(mean), 1, DEFAULTS.max_visits))
    inner = np.quantile(times, np.arange(1, most) / most, method="lower")
    return np.searchsorted(np.unique(inner), times, side="left")


def _of_level(
    own: np.ndarray,
    others: np.ndarray,
    visits: np.ndarray,
    times: np.ndarray,
    scores: np.ndarray,
    where: str,
) -> Iterator[Finding]:
    """The two tests of one level; nothing with fewer than two visits."""
    found = []
    for visit in np.unique(visits):
        first, second = (scores[x & (visits == visit)] for x in (own, others))
        if len(first) < DEFAULTS.min_at_visit or len(second) < DEFAULTS.min_others:
            continue
        error = np.sqrt(np.var(scores[visits == visit]) * (1 / len(first) + 1 / len(second)))
        z = float((first.mean() - second.mean()) / max(error, 1e-12))
        found.append((z, float(np.median(times[own & (visits == visit)]))))
    if len(found) < 2:
        return
    squares = float(sum(z**2 for z, _ in found))
    far, at = max(found, key=lambda x: abs(x[0]))
    side = "higher" if far > 0 else "lower"
    single = f"values at times of about {at:.4g} are {side} than the model says {where}"
    several = f"{single}, and deviate there at other times, too"
    p_value = 2 * len(found) * float(scipy.stats.norm.sf(abs(far)))
    yield Finding(min(1.0, p_value), single, ADVICE)
    yield Finding(float(scipy.stats.chi2.sf(squares, len(found))), several, ADVICE)
