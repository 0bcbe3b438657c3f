r"""Score tests of the errors: of neighbouring values, of steep parts of the curves, of frequencies.

The score of a parameter that the model lacks is, of an individual, the posterior mean of the
derivative of its log density. What the scores of the population parameters explain of it is left
out of its variance, so a random effect that follows the errors takes less of the power than in
single draws.

References:
    Rao (1948), Large sample tests of statistical hypotheses.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats
from torch import Tensor

from ...cohort import Cohort
from ..check_results import combined_p_value
from ..variables.variable_findings import FINDINGS, Finding, Phrases, against_variables
from .residual_analysis import Residuals
from .value_frequencies import compared_values
from .value_order import order_p_value


@dataclass(frozen=True)
class ScoreTestSettings:
    r"""When the tests are made.

    Args:
        min_values: Fewest values.
        min_pairs: Fewest pairs of consecutive values.
        min_steep: Smallest median slope, in standard deviations of the errors for a change of the
            time by its own size, from which wrong times can be seen.
        few: Most categories whose use is compared between the levels of a variable.
    """

    min_values: int = 30
    min_pairs: int = 20
    min_steep: float = 0.1
    few: int = 8


DEFAULTS = ScoreTestSettings()
TOGETHER = (
    "Look for a structural misfit of single individuals, for parameters that vary between "
    "occasions, or let the errors be correlated (a stochastic model)."
)
STEEP = (
    "Look for planned times in place of the real ones, and for clocks that differ; otherwise give "
    "the residual error a part that grows with the slope."
)
FREQUENT = (
    "Look for a form that ends, for digits that are preferred, and for values that were written as "
    "a code; otherwise use another distribution."
)
USED = (
    "Look for a rater who uses the scale differently, or give the groups thresholds of their own."
)


def _ordered(rows: np.ndarray, residuals: Residuals, used: Tensor) -> float | None:
    """P-value of the order of counts and categories, where it is known exactly."""
    predicted = residuals.drawn_predictions[:, used].double().numpy()
    if residuals.kind == "continuous" or not np.isfinite(predicted).all():
        return None
    return order_p_value(rows, residuals.observed[used].double().numpy(), predicted)


def neighbour_findings(
    rows: np.ndarray,
    residuals: Residuals,
    used: Tensor,
    drawn: np.ndarray,
    scores: np.ndarray | None,
) -> list[Finding]:
    """Errors of neighbouring values that go together."""
    drawn, exact = deviations_of(residuals, used, drawn), _ordered(rows, residuals, used)
    same = rows[1:] == rows[:-1]
    if same.sum() < DEFAULTS.min_pairs:
        return []
    tests = [scipy.stats.spearmanr(x[:-1][same], x[1:][same]) for x in drawn]
    p_value = _score_p_value(rows, drawn, same, scores) if exact is None else exact
    if p_value is None:
        p_value = combined_p_value([float(x.pvalue) for x in tests])
    correlation = float(np.mean([x.statistic for x in tests]))
    words = (
        f"errors of neighbouring values of an individual go together (correlation "
        f"{correlation:+.2f})"
    )
    return [Finding(p_value, words, TOGETHER)]


def deviations_of(residuals: Residuals, used: Tensor, drawn: np.ndarray) -> np.ndarray:
    """The residuals whose neighbours are compared: the deviations of counts, in standard deviations
    of the Poisson distribution, and of categories; else the weighted residuals.
    """
    predicted = residuals.drawn_predictions[:, used]
    if residuals.kind == "continuous" or not bool(predicted.isfinite().all()):
        return drawn
    deviations = residuals.observed[used] - predicted
    if residuals.kind == "count":
        deviations = deviations / predicted.clamp(min=1e-6).sqrt()
    return deviations.double().numpy()


def _score_p_value(
    rows: np.ndarray, drawn: np.ndarray, same: np.ndarray, scores: np.ndarray | None
) -> float | None:
    """P-value of the score test of an autocorrelation; None where individuals are too few."""
    own = sums_by_individual(rows[1:][same], (drawn[:, 1:] * drawn[:, :-1])[:, same], scores)
    test = score_statistic(own, np.unique(rows[1:][same]), scores)
    return None if test is None else test.two_sided


def sums_by_individual(
    rows: np.ndarray, terms: np.ndarray, scores: np.ndarray | None
) -> np.ndarray:
    """Sums over the values of an individual, means over the draws.

    Args:
        rows: Row of the individual of each value.
        terms: What is added, shape ``(draw, value)``.
        scores: Scores of the population parameters, shape ``(individual, parameter)``, or None.
    """
    num = int(rows.max(initial=0)) + 1 if scores is None else len(scores)
    sums: np.ndarray = np.mean([np.bincount(rows, x, num) for x in terms], 0)
    return sums


class ScoreStatistic(NamedTuple):
    r"""The test of a sum of scores, which has a t distribution.

    Args:
        statistic: The sum in its standard errors.
        freedom: Degrees of freedom.
    """

    statistic: float
    freedom: int

    @property
    def upper(self) -> float:
        """P-value of a sum that is too large."""
        return float(scipy.stats.t.sf(self.statistic, self.freedom))

    @property
    def two_sided(self) -> float:
        """P-value of a sum that is too large or too small."""
        return float(2 * scipy.stats.t.sf(abs(self.statistic), self.freedom))


def score_statistic(
    own: np.ndarray, used: np.ndarray, scores: np.ndarray | None
) -> ScoreStatistic | None:
    """The test of the sum of the scores of individuals; None where they are too few. What the
    scores of the population parameters explain is left out of its variance.

    Args:
        own: The scores, shape ``(individual,)``.
        used: Rows of the individuals that are used.
        scores: Scores of the population parameters, shape ``(individual, parameter)``; None, or
            one that is not finite: nothing is known.
    """
    if scores is None or not np.isfinite(scores).all():
        return None
    freedom = len(used) - scores.shape[1]
    if freedom < FINDINGS.min_individuals:
        return None
    own = own[used]
    explained = scores[used] @ np.linalg.lstsq(scores[used], own, rcond=None)[0]
    error = float(np.sqrt(np.square(own - explained).sum() * len(used) / freedom))
    return ScoreStatistic(float(own.sum()) / max(error, 1e-300), freedom)


def steep_findings(
    rows: np.ndarray,
    residuals: Residuals,
    used: Tensor,
    drawn: np.ndarray,
    scores: np.ndarray | None,
) -> list[Finding]:
    """Larger errors where the curves are steep."""
    per_time = residuals.drawn_slopes[:, used].double().numpy()
    relative = per_time * residuals.times[used].double().numpy()
    known = np.isfinite(relative).all(0)
    if known.sum() < DEFAULTS.min_values or np.median(np.abs(relative[:, known])) < (
        DEFAULTS.min_steep
    ):
        return []
    findings = []
    for slopes, unit in ((relative, "relative to it"), (per_time, "by the same amount")):
        size = np.square(slopes[:, known])
        size = size / (size + np.median(size) + 1e-300)
        terms = (np.square(drawn[:, known]) - 1) * size
        own = sums_by_individual(rows[known], terms, scores)
        test = score_statistic(own, np.unique(rows[known]), scores)
        if test is not None:
            words = (
                "the errors are larger where the curve of the individual is steep, as where the "
                f"times are wrong ({unit})"
            )
            findings.append(Finding(test.upper, words, STEEP))
    return findings


def frequency_findings(
    rows: np.ndarray,
    residuals: Residuals,
    used: Tensor,
    cohort: Cohort,
    scores: np.ndarray | None,
) -> list[Finding]:
    """Values of counts and categories that are too frequent or too rare, also by a variable."""
    expected = residuals.frequencies[used].numpy()
    values, findings = residuals.observed[used].numpy(), []
    number = np.maximum(np.bincount(rows, minlength=len(cohort)), 1)
    for c in compared_values(expected):
        deviations = (values == c) - expected[:, c]
        sums, own = np.bincount(rows, deviations, len(cohort)), np.unique(rows)
        test = score_statistic(sums, own, scores)
        if test is not None:
            words = (
                f"the value {c:g} occurs {int((values == c).sum())} times, where "
                f"{expected[:, c].sum():.0f} are expected"
            )
            findings.append(Finding(test.two_sided, words, FREQUENT))
        if residuals.kind == "category" and 2 < expected.shape[1] <= DEFAULTS.few:
            words = (
                f"the category {c:g} is {{}} than the model says, by {{}} (of the root of the "
                "number of values), {}"
            )
            means = (sums / np.sqrt(number))[own]  # of about the same variance
            sides = ("more frequent", "rarer")
            phrases = Phrases(words, USED, sides)
            findings += against_variables(means, own, cohort, phrases, levels_only=True)
    return findings
