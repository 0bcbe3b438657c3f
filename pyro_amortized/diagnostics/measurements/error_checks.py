r"""Whether the errors of the measurements are independent and spread as the model says.

The residuals of one posterior draw of each individual are independent and standard normal under the
right model. Tests of several draws are combined to one p-value.

- *Tails*: the normality (Shapiro and Wilk) of the prediction errors (npde).
- *Single values*: the residual of each value in its standard deviation, which is smaller where the
  value determines its own prediction, with Bonferroni's factor for their number.
- *Neighbouring values*: the score test of an autocorrelation of the errors. Its score, of an
  individual, is the posterior mean of the sum of the products of consecutive residuals; what
  the scores of the population parameters explain of it is left out of its variance. So a random
  effect that follows the errors takes less of the power than in single draws. With few individuals
  the rank correlation of consecutive residuals takes its place.
  Of counts and categories, the products are those of the deviations from the expected values,
  which do not depend on how equal values are ranked; where their distribution does not change over
  time, the test is exact (:mod:`pyro_amortized.diagnostics.measurements.value_order`).
- *Steep parts of the curves*: the same score test of a further part of the variance that is
  proportional to the square of the slope, per unit of time or of the logarithm of the time.
  Wrong times (planned ones in place of the real ones) have it.
- *Spread between individuals*: the sum of squares of an individual has a chi-squared distribution;
  its normal quantiles have the variance one.
- *Spread and a variable* (covariates, first dose, order in the file): a regression of the normal
  scores of the means of these quantiles over the draws. Errors that are twice as large in half of
  48 individuals (seven values, three random effects) are found at the level 0.0005 in 0.99 of the
  cohorts; a combination of the tests of single draws finds them in 0.84.
- *Level and a variable*: a regression of the best estimate of a common factor of all values of each
  individual (:mod:`~pyro_amortized.diagnostics.measurements.value_levels`) on the variable. A
  laboratory, batch or study whose values are all too high is found here also where single
  parameters move little.
- *Course and a variable*: a regression of the trend of the prediction errors of each individual
  over time on the variable. A treatment or a placebo effect that the model leaves out in a group is
  found here where the random effects take up its mean.
- *Visits and a variable*: the prediction errors of a level at single visits
  (:mod:`pyro_amortized.diagnostics.measurements.visit_errors`).
- *Changes of a covariate*: the rank correlation of the prediction errors with the moves of a
  time-varying covariate within the individuals.

References:
    Rao (1948), Large sample tests of statistical hypotheses.
    Vovk, Wang (2020), Combining p-values via averaging, Biometrika 107.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
from torch import Tensor

from ...cohort import Cohort
from ..check_results import Check, combined_p_value
from ..result_selection import rows_of
from ..variables.compared_variables import Variable, variables_of_design
from ..variables.variable_findings import Finding, Phrases, against_variables, check_of_findings
from ..variables.variable_tests import (
    columns_of,
    contrast,
    dependence_p_value,
    known_among,
    normal_scores,
    regression_p_value,
)
from .residual_analysis import Residuals
from .score_tests import deviations_of, frequency_findings, neighbour_findings, steep_findings
from .value_repeats import repeat_findings
from .visit_errors import visit_findings


@dataclass(frozen=True)
class ErrorCheckSettings:
    r"""When the tests are made.

    Args:
        min_values: Fewest values.
        min_individuals: Fewest individuals whose spreads are compared.
        min_in_course: Fewest values of an individual whose trend over time is compared.
        min_move: Change of a covariate within an individual that counts, as a part of its largest
            value.
        max_shapiro: Most values of the test of normality, whose p-values are not known beyond.
        far_value: P-value among all values below which each of the farthest ones is named.
        max_far: Most of them.
        max_leverage: Largest leverage of a value.
    """

    min_values: int = 30
    min_individuals: int = 8
    min_in_course: int = 3
    min_move: float = 1e-6
    max_shapiro: int = 5000
    far_value: float = 0.01
    max_far: int = 3
    max_leverage: float = 0.8


DEFAULTS = ErrorCheckSettings()
TAILS = "Use a distribution with heavier tails (`StudentT`), or look for wrong values."
WILD = (
    "Look for a typing error, another unit or a mixed-up sample; without one, use a distribution "
    "with heavier tails (`StudentT`)."
)
INDIVIDUALS = (
    "Let the residual error vary between individuals (an individual site that scales it), or use "
    "heavier tails."
)
COUNTS = (
    "Counts that vary more than the model says need another distribution: negative binomial, or "
    "zero-inflated."
)
LEVEL = (
    "Look for another assay, unit or dose in these individuals; otherwise add the variable to the "
    "mean of the parameters."
)
COURSE = (
    "Look for an effect that begins or changes during the study in these individuals: a treatment, "
    "a placebo effect, an adaptation."
)
CHANGES = (
    "Let the parameters depend on the current value of the covariate, "
    "`cohort.time_varying[name].at(times)`."
)
VARIABLE = "Give the groups residual errors of their own, or make the error depend on the variable."


def error_checks(
    residuals: Residuals, cohort: Cohort, scores: np.ndarray | None = None
) -> list[Check]:
    """The check of the errors of one series, and for counts and categories that of the frequencies
    of values; an empty list where there are too few values, and for counts and categories without
    normal scores.

    Args:
        residuals: Residuals of the series.
        cohort: The data of the fit.
        scores: Scores of the estimated population parameters, shape ``(individual, parameter)``.
            Default: not known.
    """
    used = residuals.npde.isfinite()
    used &= residuals.drawn_iwres.isfinite().all(0)
    is_known = residuals.has_scores or residuals.kind == "continuous"
    if not is_known or int(used.sum()) < DEFAULTS.min_values:
        return []
    npde, drawn = residuals.npde[used].numpy(), residuals.drawn_iwres[:, used].numpy()
    rows = rows_of(cohort, residuals.ids)[used.numpy()]
    is_discrete = residuals.kind in ("count", "category")
    errors = deviations_of(residuals, used, drawn).mean(0) if is_discrete else npde
    findings = [
        *_tails(npde),
        *(_single_values(residuals, used, drawn) if residuals.has_scores else []),
        *neighbour_findings(rows, residuals, used, drawn, scores),
        *steep_findings(rows, residuals, used, drawn, scores),
        *_spreads(rows, drawn, cohort, COUNTS if residuals.kind == "count" else INDIVIDUALS),
        *_levels(rows, residuals, used, cohort),
        *_courses(rows, residuals.times[used].numpy(), errors, cohort),
        *visit_findings(rows, residuals.times[used].numpy(), errors, cohort),
        *_within(rows, npde, _current_values(cohort, residuals.series, used)),
    ]
    name = residuals.series
    checks = [check_of_findings(f"errors of {name}", findings)] if findings else []
    counted = frequency_findings(rows, residuals, used, cohort, scores)
    if is_discrete and residuals.frequencies.shape[1]:
        counted += repeat_findings(rows, residuals, used, cohort, scores)
    return checks + ([check_of_findings(f"frequencies of {name}", counted)] if counted else [])


def _tails(npde: np.ndarray) -> list[Finding]:
    if len(npde) > DEFAULTS.max_shapiro:
        return []
    p_value = float(scipy.stats.shapiro(npde).pvalue)
    kurtosis = float(scipy.stats.kurtosis(npde))
    words = f"the errors are not normally distributed (excess kurtosis {kurtosis:+.1f})"
    return [Finding(p_value, words, TAILS)]


def _single_values(residuals: Residuals, used: Tensor, drawn: np.ndarray) -> list[Finding]:
    r"""The values that lie farthest from what the others of the individual predict, with the factor
    of Bonferroni for the number of values: the mean of the residuals r over the draws has the
    variance :math:`1 - h` with the leverage h, the variance of r over the draws.
    """
    # The part of the variance of a residual that its own value takes away; that of few draws is
    # noisy, so no value has more than the mean.
    leverage = drawn.var(0, ddof=1)
    leverage = np.minimum(leverage, leverage.mean()).clip(0.0, DEFAULTS.max_leverage)
    left = 1 - leverage * (1 - 1 / len(drawn))
    distances = drawn.mean(0) / np.sqrt(left)
    p_values = np.minimum(1.0, 2 * len(distances) * scipy.stats.norm.sf(np.abs(distances)))
    order = np.argsort(p_values)
    far = [int(k) for k in order[: DEFAULTS.max_far] if p_values[k] < DEFAULTS.far_value]
    places = used.nonzero()[:, 0].tolist()
    named = []
    for k in far or [int(order[0])]:
        j, distance = places[k], float(distances[k])
        named.append(
            f"the value {float(residuals.observed[j]):.4g} of individual {residuals.ids[j]} at the "
            f"time {float(residuals.times[j]):.4g} lies {abs(distance):.1f} standard deviations "
            f"{'above' if distance > 0 else 'below'} what the others predict"
        )
    return [Finding(float(p_values[order[0]]), ", ".join(named), WILD)]


def _spreads(rows: np.ndarray, drawn: np.ndarray, cohort: Cohort, advice: str) -> list[Finding]:
    """Spreads of the individuals, against the model and against every variable of the cohort."""
    own = np.unique(rows)
    if len(own) < DEFAULTS.min_individuals:
        return []
    counts = np.bincount(rows, minlength=len(cohort))[own]
    sums = np.stack([np.bincount(rows, x**2, len(cohort))[own] for x in drawn])
    scores = _chi2_scores(sums, counts)
    p_value = combined_p_value([float(scipy.stats.chi2.sf((z**2).sum(), len(z))) for z in scores])
    ratio = float(np.exp(np.log(np.maximum(sums / counts, 1e-300)).std(1).mean() / 2))
    words = f"individuals have errors of different size (a factor of {ratio:.1f} about the mean)"
    findings = [Finding(p_value, words, advice)]
    spreads = _mean_spreads(scores, counts)
    for variable in variables_of_design(cohort):
        findings += _spread_by(variable, spreads, own)
    return findings


def _levels(rows: np.ndarray, residuals: Residuals, used: Tensor, cohort: Cohort) -> list[Finding]:
    """Values of the individuals that are all too high or too low, against every variable."""
    own, levels = np.unique(rows), residuals.levels.take(used)
    terms = (levels.weights * residuals.pd_scores[used]).numpy()
    means = np.bincount(rows, terms, len(cohort))[own]
    known = np.bincount(rows, (levels.weights * levels.slopes).numpy(), len(cohort))[own].mean()

    def size(move: float) -> str:
        if levels.are_logarithms:
            return f"by a factor of about {np.exp(min(move / max(known, 1e-12), 50.0)):.2f}"
        return f"by about {move / max(known, 1e-12):.3g}"

    phrases = Phrases("the values as a whole are {}, {}, {}", LEVEL, size=size)
    return against_variables(means, own, cohort, phrases)


def _courses(
    rows: np.ndarray, times: np.ndarray, npde: np.ndarray, cohort: Cohort
) -> list[Finding]:
    """Trends of the prediction errors within the individuals, against every variable."""
    own, slopes = [], []
    for i in np.unique(rows):
        rank = scipy.stats.rankdata(times[rows == i])
        rank -= rank.mean()
        if len(rank) >= DEFAULTS.min_in_course and np.ptp(rank) > 0:
            own.append(int(i))
            slopes.append(float(npde[rows == i] @ rank / np.sqrt(rank @ rank)))
    words = (
        "late values, given the early ones, are {} than the model says, by {} standard "
        "deviations, {}"
    )
    phrases = Phrases(words, COURSE)
    return against_variables(np.array(slopes), np.array(own, dtype=int), cohort, phrases)


def _current_values(cohort: Cohort, name: str, used: Tensor) -> dict[str, np.ndarray]:
    """The values of every time-varying covariate of one channel at the values that are used."""
    series = cohort[name]
    return {
        covariate: record.at(series.times)[series.observed][used].double().numpy()
        for covariate, record in cohort.time_varying.items()
        if record.values.dim() == 2
    }


def _within(rows: np.ndarray, npde: np.ndarray, current: dict[str, np.ndarray]) -> list[Finding]:
    """Prediction errors against the moves of time-varying covariates within the individuals."""
    findings = []
    for name, x in current.items():
        known = np.isfinite(x)
        sums, counts = (np.bincount(rows[known], w) for w in (x[known], np.ones(known.sum())))
        move = x[known] - (sums / np.maximum(counts, 1))[rows[known]]
        moved = np.abs(move) > DEFAULTS.min_move * max(
            float(np.abs(x[known]).max(initial=0)), 1e-300
        )
        if moved.sum() < DEFAULTS.min_values:
            continue
        test = scipy.stats.spearmanr(move[moved], npde[known][moved])
        words = (
            f"the errors go with the changes of {name} within the individuals (correlation "
            f"{test.statistic:+.2f})"
        )
        findings.append(Finding(float(test.pvalue), words, CHANGES))
    return findings


def _chi2_scores(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Normal quantiles of sums of squares, from the tail that is smaller."""
    upper, lower = scipy.stats.chi2.sf(sums, counts), scipy.stats.chi2.cdf(sums, counts)
    quantile: Callable[[np.ndarray], np.ndarray] = scipy.stats.norm.ppf
    tiny = 1e-300
    return np.where(
        upper < lower, -quantile(np.maximum(upper, tiny)), quantile(np.maximum(lower, tiny))
    )


def _mean_spreads(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means over the draws in units of their standard deviations, shape ``(individual,)``.

    The more values an individual has, the less its draws differ and the more its mean varies: with
    D draws whose variance given the data is w, the mean has the variance 1 - (1 - 1 / D) w. The
    part w falls with the inverse of the number of values.
    """
    num = len(scores)
    columns = np.column_stack([np.ones(len(counts)), 1 / counts])
    within = scores.var(0, ddof=1)
    coefficients, *_ = np.linalg.lstsq(columns, within, rcond=None)
    variance = 1 - (1 - 1 / num) * np.clip(columns @ coefficients, 0.0, 1.0)
    scaled: np.ndarray = scores.mean(0) / np.sqrt(variance)
    return scaled


def _spread_by(variable: Variable, spreads: np.ndarray, own: np.ndarray) -> list[Finding]:
    """Spreads of the individuals against a variable, shape ``(individual,)``."""
    known, used = known_among(variable, own)
    columns = columns_of(variable, used)
    if len(columns) < columns.shape[1] + 1 + DEFAULTS.min_individuals:
        return []
    ranks = normal_scores(spreads[known])

    def p_value_of(columns: np.ndarray) -> float:
        return regression_p_value(ranks, np.column_stack([np.ones(len(columns)), columns]))

    p_value = dependence_p_value(variable, used, p_value_of)
    found = contrast(ranks, np.ones(len(columns)), variable, used)
    words = (
        f"the size of the errors goes with {variable.name}: they are "
        f"{'larger' if found.slope > 0 else 'smaller'} {found.where}"
    )
    return [Finding(p_value, words, VARIABLE)]
