r"""Whether values are missing because of what they are, or of what was recorded before them.

Two tests of every series whose values some individuals lack:

- *Predictions where values are missing.* At a time at which some individuals have a value and
  others have none, the predictions with the parameters of the individuals are ranked. If it does
  not depend on the value whether it is recorded, the ranks of the missing ones are those of a
  random choice; the test is that of Wilcoxon, stratified by the times.
- *Values before missing ones.* The prediction errors (npde) of the last values before a missing one
  are compared with those of all others by the t test of Welch. They differ where individuals leave
  a study after a high or a low value.

The first is a sign of values that are missing not at random: the parameters are then biased unless
the program models what is recorded. The second alone is none, if only recorded values decide.

References:
    van Elteren (1960), On the combination of independent two-sample tests of Wilcoxon; Little and
    Rubin (2019), Statistical Analysis with Missing Data.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from ...cohort import Series, dropout_of
from ...population.results.fit_result import PopulationFit
from ...sampling.posterior_centers import posterior_centers
from ..check_results import P_VALUES, Check, Status
from ..result_selection import value_moments
from .residual_analysis import Residuals


@dataclass(frozen=True)
class MissingnessSettings:
    r"""When the tests are made.

    Args:
        min_missing: Fewest missing values that are compared.
        min_recorded: Fewest individuals with a value at a time.
        time_tolerance: Relative difference of times that count as the same.
    """

    min_missing: int = 5
    min_recorded: int = 4
    time_tolerance: float = 1e-6


DEFAULTS = MissingnessSettings()
RULE = (
    "If a rule about recorded values decides who leaves (a rescue treatment), the estimates are "
    "right. Otherwise: "
)
NAME = "what is missing"
ADVICE = (
    "Model what is recorded with a series `<name>_recorded`, or give the limit of quantification "
    "(`<name>_low`); the page on missing data has both."
)


def missingness_checks(fit: PopulationFit, residuals: Residuals) -> list[Check]:
    """The check of one series; an empty list where too few values are missing.

    Args:
        fit: The fit.
        residuals: Residuals of the series.
    """
    if dropout_of(fit.cohort, residuals.series) in fit.structure.series:
        return []  # the model describes why values are missing
    series = fit.cohort[residuals.series]
    missing = planned_but_missing(series)
    if int(missing.sum()) < DEFAULTS.min_missing:
        return []
    found: list[tuple[float, str]] = []
    by_rank = _rank_test(_predictions(fit, residuals.series), series, missing)
    if by_rank is not None:
        z, p_value = by_rank
        side = "low" if z < 0 else "high"
        found.append((p_value, f"values are missing where the model predicts {side} ones"))
    before = _before_missing(series, missing)
    by_error = _error_test(before[series.observed].numpy(), residuals.npde.numpy())
    if by_error is not None:
        difference, p_value = by_error
        side = "low" if difference < 0 else "high"
        found.append((p_value, f"the last values before missing ones are unusually {side}"))
    if not found:
        return []
    smallest = min(1.0, len(found) * min(p for p, _ in found))
    named = [f"{words} (p = {p:.1g})" for p, words in found if len(found) * p < P_VALUES.look]
    words = f"No deviation was found in {len(found)} tests."
    if named:
        is_by_value = by_rank is not None and len(found) * by_rank[1] < P_VALUES.look
        advice = ADVICE if is_by_value else f"{RULE}{ADVICE[0].lower()}{ADVICE[1:]}"
        words = f"Of {residuals.series!r}, {'; '.join(named)}. {advice}"
    status: Status = "look" if named else "passed"
    return [Check(NAME, status, smallest, words, "model", len(found))]


def planned_but_missing(series: Series) -> Tensor:
    """Places of values that were planned and not recorded, shape ``(individual, time)``: those that
    are masked at a time of their own; padding repeats the last time.
    """
    times = series.times
    own = torch.ones_like(series.observed)
    own[:, 1:] = times[:, 1:] > times[:, :-1]
    return ~series.observed & own


def _before_missing(series: Series, missing: Tensor) -> Tensor:
    """Recorded values whose next planned value is missing, shape ``(individual, time)``."""
    following = torch.zeros_like(missing)
    following[:, :-1] = missing[:, 1:]
    return series.observed & following


def _predictions(fit: PopulationFit, name: str) -> Tensor:
    """Predictions with the posterior means of the individuals, shape ``(individual, time)``."""
    centers = posterior_centers(fit.individuals).unsqueeze(0)
    return value_moments(fit.individuals, name, centers)[0, ..., 0]


def _rank_test(predictions: Tensor, series: Series, missing: Tensor) -> tuple[float, float] | None:
    """Standardised sum of the ranks of the missing values over all times, and its p-value."""
    times = series.times.double()
    total, variance, num = 0.0, 0.0, 0
    known = predictions.isfinite() & (missing | series.observed)
    for t in times[missing].unique().tolist():
        here = known & ((times - t).abs() <= DEFAULTS.time_tolerance * max(abs(t), 1e-12))
        recorded, lost = here & series.observed, here & missing
        m, n = int(lost.sum()), int(recorded.sum())
        if m == 0 or n < DEFAULTS.min_recorded:
            continue
        ranks = scipy.stats.rankdata(torch.cat([predictions[lost], predictions[recorded]]).numpy())
        # Weights of van Elteren: the strata count by their information.
        weight = 1 / (m + n + 1)
        total += weight * (float(ranks[:m].sum()) - m * (m + n + 1) / 2)
        variance += weight**2 * m * n * (m + n + 1) / 12
        num += m
    if num < DEFAULTS.min_missing or variance <= 0:
        return None
    z = total / math.sqrt(variance)
    return z, 2 * float(scipy.stats.norm.sf(abs(z)))


def _error_test(before: np.ndarray, errors: np.ndarray) -> tuple[float, float] | None:
    """Difference of the mean errors before missing values and of all others, and its p-value."""
    known = np.isfinite(errors)
    first, others = errors[known & before], errors[known & ~before]
    if len(first) < DEFAULTS.min_missing or len(others) < DEFAULTS.min_missing:
        return None
    result = scipy.stats.ttest_ind(first, others, equal_var=False)
    return float(first.mean() - others.mean()), float(result.pvalue)
