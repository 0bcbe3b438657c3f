r"""Whether the errors of the measurements are independent and spread as the model says.

The residuals of one posterior draw of each individual are independent and standard normal under the
right model. Tests of several draws are combined to one p-value.

- *Tails*: the normality (Shapiro and Wilk) of the prediction errors (npde).
- *Neighbouring values*: the score test of an autocorrelation of the errors. Its score, of an
  individual, is the posterior mean of the sum of the products of consecutive residuals; what
  the scores of the population parameters explain of it is left out of its variance. So a random
  effect that follows the errors takes less of the power than in single draws. With few individuals
  the rank correlation of consecutive residuals takes its place.
  Of counts and categories, the products are those of the deviations from the expected values,
  which do not depend on how equal values are ranked; where their distribution does not change over
  time, the test is exact (:mod:`pyro_amortized.diagnostics.value_order`).
- *Steep parts of the curves*: the same score test of a further part of the variance that is
  proportional to the square of the slope, per unit of time or of the logarithm of the time.
  Wrong times (planned ones in place of the real ones) have it.
- *Spread between individuals*: the sum of squares of an individual has a chi-squared distribution;
  its normal quantiles have the variance one.
- *Spread and a variable* (covariates, first dose, order in the file): a regression of these
  quantiles on the variable.
- *Level and a variable*: a regression of the mean normal score of the prediction discrepancies (pd)
  of each individual on the variable. A laboratory, batch or study whose values are all too high is
  found here also where single parameters move little.
- *Course and a variable*: a regression of the trend of the prediction errors of each individual
  over time on the variable. A treatment or a placebo effect that the model leaves out in a group is
  found here where the random effects take up its mean.
- *Changes of a covariate*: the rank correlation of the prediction errors with the moves of a
  time-varying covariate within the individuals.

References:
    Rao (1948), Large sample tests of statistical hypotheses.
    Vovk, Wang (2020), Combining p-values via averaging, Biometrika 107.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats
from torch import Tensor

from ..cohort import Cohort
from .check_results import DEFAULTS as P_VALUES
from .check_results import Check, Status
from .compared_variables import Variable, variables_of_design
from .effect_dependence import contrast
from .residual_analysis import Residuals
from .uniformity_tests import combined_p_value
from .value_order import order_p_value
from .variable_tests import columns_of, known_values, regression_p_value


@dataclass(frozen=True)
class ErrorCheckSettings:
    r"""When the tests are made.

    Args:
        min_values: Fewest values.
        min_individuals: Fewest individuals whose spreads are compared.
        min_in_course: Fewest values of an individual whose trend over time is compared.
        min_move: Change of a covariate within an individual that counts, as a part of its largest
            value.
        min_pairs: Fewest pairs of consecutive values.
        max_shapiro: Most values of the test of normality, whose p-values are not known beyond.
        max_named: Most findings that are named.
        min_steep: Smallest median slope, in standard deviations of the errors for a change of the
            time by its own size, from which wrong times can be seen.
    """

    min_steep: float = 0.1
    min_values: int = 30
    min_individuals: int = 8
    min_in_course: int = 3
    min_move: float = 1e-6
    min_pairs: int = 20
    max_shapiro: int = 5000
    max_named: int = 3


DEFAULTS = ErrorCheckSettings()
TAILS = "Use a distribution with heavier tails (`StudentT`), or look for wrong values."
TOGETHER = (
    "Look for a structural misfit of single individuals, for parameters that vary between "
    "occasions, or let the errors be correlated (a stochastic model)."
)
STEEP = (
    "Look for planned times in place of the real ones, and for clocks that differ; otherwise give "
    "the residual error a part that grows with the slope."
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


class Finding(NamedTuple):
    """One test: its p-value, what it means in words, and what to do."""

    p_value: float
    words: str
    advice: str


def error_checks(
    residuals: Residuals, cohort: Cohort, scores: np.ndarray | None = None
) -> list[Check]:
    """The check of the errors of one series; an empty list where there are too few values, and for
    counts and categories without normal scores.

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
    index = {name: i for i, name in enumerate(cohort.ids)}
    rows = np.array([index[x] for x in residuals.ids])[used.numpy()]
    findings = [
        *_tails(npde),
        *_neighbours(rows, _followed(residuals, used, drawn), scores, _ordered(rows, residuals, used)),
        *_steep(rows, residuals, used, drawn, scores),
        *_spreads(rows, drawn, cohort, COUNTS if residuals.kind == "count" else INDIVIDUALS),
        *_levels(rows, residuals.pd_scores[used].numpy(), cohort),
        *_courses(rows, residuals.times[used].numpy(), npde, cohort),
        *_within(rows, npde, _current_values(cohort, residuals.series, used)),
    ]
    return [check_of_findings(f"errors of {residuals.series}", findings)] if findings else []


def check_of_findings(name: str, findings: list[Finding]) -> Check:
    """The verdict on the family, by Bonferroni."""
    num, ordered = len(findings), sorted(findings)
    p_value = min(1.0, num * ordered[0].p_value)
    status: Status = "passed"
    if p_value < P_VALUES.look:
        status = "failed" if p_value < P_VALUES.failed else "look"
    words = f"No deviation was found in {num} tests."
    if status != "passed":
        found = [x for x in ordered if num * x.p_value < P_VALUES.look][: DEFAULTS.max_named]
        named = "; ".join(f"{x.words} (p = {x.p_value:.1g})" for x in found)
        words = f"Found: {named}. {' '.join(dict.fromkeys(x.advice for x in found))}"
    return Check(name, status, p_value, words, "model", num)


def _tails(npde: np.ndarray) -> list[Finding]:
    if len(npde) > DEFAULTS.max_shapiro:
        return []
    p_value = float(scipy.stats.shapiro(npde).pvalue)
    kurtosis = float(scipy.stats.kurtosis(npde))
    words = f"the errors are not normally distributed (excess kurtosis {kurtosis:+.1f})"
    return [Finding(p_value, words, TAILS)]


def _ordered(rows: np.ndarray, residuals: Residuals, used: Tensor) -> float | None:
    """P-value of the order of counts and categories, where it is known exactly."""
    predicted = residuals.drawn_predictions[:, used].double().numpy()
    if residuals.kind == "continuous" or not np.isfinite(predicted).all():
        return None
    return order_p_value(rows, residuals.observed[used].double().numpy(), predicted)


def _neighbours(
    rows: np.ndarray, drawn: np.ndarray, scores: np.ndarray | None, exact: float | None
) -> list[Finding]:
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


def _followed(residuals: Residuals, used: Tensor, drawn: np.ndarray) -> np.ndarray:
    """The residuals whose neighbours are compared: the deviations of counts, in standard deviations
    of the law of Poisson, and of categories; else the weighted residuals.
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
    own = _means_by_individual(rows[1:][same], (drawn[:, 1:] * drawn[:, :-1])[:, same], scores)
    z = _score_statistic(own, np.unique(rows[1:][same]), scores)
    return None if z is None else float(2 * scipy.stats.t.sf(abs(z[0]), z[1]))


def _means_by_individual(
    rows: np.ndarray, terms: np.ndarray, scores: np.ndarray | None
) -> np.ndarray:
    """Sums over the values of an individual, means over the draws."""
    num = int(rows.max(initial=0)) + 1 if scores is None else len(scores)
    sums: np.ndarray = np.mean([np.bincount(rows, x, num) for x in terms], 0)
    return sums


def _score_statistic(
    own: np.ndarray, used: np.ndarray, scores: np.ndarray | None
) -> tuple[float, int] | None:
    """The sum of the scores of individuals in its standard errors, and the degrees of freedom: what
    the scores of the population parameters explain is left out of its variance.
    """
    if scores is None or not np.isfinite(scores).all():
        return None
    freedom = len(used) - scores.shape[1]
    if freedom < DEFAULTS.min_individuals:
        return None
    own = own[used]
    explained = scores[used] @ np.linalg.lstsq(scores[used], own, rcond=None)[0]
    error = float(np.sqrt(np.square(own - explained).sum() * len(used) / freedom))
    return float(own.sum()) / max(error, 1e-300), freedom


def _steep(
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
        own = _means_by_individual(rows[known], terms, scores)
        z = _score_statistic(own, np.unique(rows[known]), scores)
        if z is not None:
            words = (
                "the errors are larger where the curve of the individual is steep, as where the "
                f"times are wrong ({unit})"
            )
            findings.append(Finding(float(scipy.stats.t.sf(z[0], z[1])), words, STEEP))
    return findings


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
    for variable in variables_of_design(cohort):
        findings += _spread_by(variable, scores, own)
    return findings


def _levels(rows: np.ndarray, scores: np.ndarray, cohort: Cohort) -> list[Finding]:
    """Mean deviations of the individuals from the population, against every variable."""
    own = np.unique(rows)
    counts = np.bincount(rows, minlength=len(cohort))[own]
    means = np.bincount(rows, scores, len(cohort))[own] / counts
    words = "the values as a whole are {}, by {:.2f} standard deviations of the predictions, {}"
    return against_variables(means, own, cohort, words, LEVEL)


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
        "late values, given the early ones, are {} than the model says, by {:.2f} standard "
        "deviations, {}"
    )
    return against_variables(np.array(slopes), np.array(own, dtype=int), cohort, words, COURSE)


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


def against_variables(
    scores: np.ndarray,
    own: np.ndarray,
    cohort: Cohort,
    words: str,
    advice: str,
    sides: tuple[str, str] = ("higher", "lower"),
) -> list[Finding]:
    """Regressions of one number of some individuals on every variable of the cohort.

    Args:
        scores: The numbers, shape ``(individual,)``.
        own: Rows of these individuals.
        cohort: The data.
        words: The finding, with places for the side, the size, and where.
        advice: What to do.
        sides: Words for larger and smaller numbers.
    """
    findings = []
    for variable in variables_of_design(cohort):
        known = known_values(variable)[own] if len(own) else np.zeros(0, dtype=bool)
        used = np.isin(np.arange(len(variable.values)), own[known])
        columns = columns_of(variable, used)
        design = np.column_stack([np.ones(len(columns)), columns])
        if len(design) < design.shape[1] + DEFAULTS.min_individuals:
            continue
        found = contrast(scores[known], np.ones(len(design)), variable, used)
        side = sides[0] if found.slope > 0 else sides[1]
        p_value = regression_p_value(scores[known], design)
        findings.append(Finding(p_value, words.format(side, abs(found.slope), found.where), advice))
    return findings


def _chi2_scores(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Normal quantiles of sums of squares, from the tail that is smaller."""
    upper, lower = scipy.stats.chi2.sf(sums, counts), scipy.stats.chi2.cdf(sums, counts)
    quantile: Callable[[np.ndarray], np.ndarray] = scipy.stats.norm.ppf
    tiny = 1e-300
    return np.where(
        upper < lower, -quantile(np.maximum(upper, tiny)), quantile(np.maximum(lower, tiny))
    )


def _spread_by(variable: Variable, scores: np.ndarray, own: np.ndarray) -> list[Finding]:
    known = known_values(variable)[own]
    columns = columns_of(variable, np.isin(np.arange(len(variable.values)), own[known]))
    design = np.column_stack([np.ones(len(columns)), columns])
    if len(design) < design.shape[1] + DEFAULTS.min_individuals:
        return []
    p_value = combined_p_value([regression_p_value(z[known], design) for z in scores])
    return [Finding(p_value, f"the size of the errors goes with {variable.name}", VARIABLE)]
