r"""Whether errors of two series at the same times go together.

Two substances in one sample share its dilution, its volume and the wrong time that is written. The
score of a correlation of the errors is the posterior mean of the sum of the products of the
residuals of both series at the same times, which belong to the same draws of the individual
(:mod:`pyro_amortized.diagnostics.measurements.score_tests`).
"""

import itertools
from collections.abc import Sequence

import numpy as np
import scipy.stats

from ...cohort import Cohort
from ..check_results import Check
from ..result_selection import rows_of
from ..variables.variable_findings import Finding, check_of_findings
from .residual_analysis import Residuals
from .score_tests import score_statistic, sums_by_individual

MIN_PAIRS = 20  # fewest pairs of values at the same time
TOGETHER = (
    "Let the errors of both series be correlated (one `dist.MultivariateNormal` over both), or "
    "look for samples whose times, volumes or labels are wrong."
)


def series_error_checks(
    by_series: Sequence[Residuals], cohort: Cohort, scores: np.ndarray | None
) -> list[Check]:
    """The check of the errors of all pairs of series; an empty list where there is none.

    Args:
        by_series: Residuals of several series, of the same draws of the individuals.
        cohort: The data of the fit.
        scores: Scores of the estimated population parameters, shape ``(individual, parameter)``.
    """
    usable = [r for r in by_series if r.has_scores or r.kind == "continuous"]
    findings = []
    for first, second in itertools.combinations(usable, 2):
        found = _together(first, second, cohort, scores)
        findings += [] if found is None else [found]
    return [check_of_findings("errors of several series", findings)] if findings else []


def _together(
    first: Residuals, second: Residuals, cohort: Cohort, scores: np.ndarray | None
) -> Finding | None:
    """The test of one pair of series; None where too few values have the same time."""
    places = {key: k for k, key in enumerate(zip(second.ids, second.times.tolist(), strict=True))}
    keys = zip(first.ids, first.times.tolist(), strict=True)
    pairs = [(j, places[key]) for j, key in enumerate(keys) if key in places]
    if len(pairs) < MIN_PAIRS:
        return None
    one, other = (np.array(x) for x in zip(*pairs, strict=True))
    a, b = first.drawn_iwres.numpy()[:, one], second.drawn_iwres.numpy()[:, other]
    known = np.isfinite(a).all(0) & np.isfinite(b).all(0)
    rows = rows_of(cohort, first.ids)[one[known]]
    if len(rows) < MIN_PAIRS:
        return None
    own = sums_by_individual(rows, (a * b)[:, known], scores)
    test = score_statistic(own, np.unique(rows), scores)
    if test is None:
        return None
    of_draws = [scipy.stats.spearmanr(x, y) for x, y in zip(a[:, known], b[:, known], strict=True)]
    correlation = float(np.mean([x.statistic for x in of_draws]))
    words = (
        f"errors of {first.series} and {second.series} at the same times go together (correlation "
        f"{correlation:+.2f})"
    )
    return Finding(test.two_sided, words, TOGETHER)
