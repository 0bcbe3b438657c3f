r"""Checks of a population fit: how it ended, its standard errors, its data, and its residuals.

Under the right model the normalised prediction distribution errors (npde) of the residuals are
independent and standard normal. Their mean (t test), variance (chi-square test), distribution
(Kolmogorov-Smirnov test), trends (Spearman correlation) and the means at single times and
predictions (analysis of variance) are tested. The absolute individual
weighted residuals of posterior draws must not depend on the prediction, or on time.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from torch import Tensor

from ..population.fit_result import PopulationFit
from ..population.likelihood_estimate import MarginalLikelihood
from ..sampling.importance_weights import PARETO
from ..sampling.weight_quality import has_heavy_tail
from .check_results import About, Check, Status, check_p_values
from .data_check import DataCheck
from .residual_analysis import Residuals
from .uniformity_tests import combined_p_value


@dataclass(frozen=True)
class FitCheckSettings:
    r"""Limits of the checks of a fit.

    Args:
        unreliable_failed: Share of individuals with a large Pareto k above which the check fails;
            below it each of them asks for a look.
        max_mc_error: Monte Carlo error of -2LL from which a look is advised. A likelihood ratio
            test of one parameter at level 5 % compares differences of -2LL with 3.84.
        outside_failed: Share of individuals outside the training data above which the check fails;
            below it each of them asks for a look.
        min_values: Fewest recorded values of a series whose residuals are tested.
        max_groups: Most groups of times or predictions whose means are compared.
        min_in_group: Values per group that decide about their number; one with less than half of
            them is left out.
        max_named: Most individuals that a message names.
        min_per_parameter: Individuals per parameter below which the sandwich says little.
        max_ratio: Factor between the standard errors by curvature and by the sandwich from which a
            look is advised. With ten individuals per parameter the standard deviation of its
            logarithm is about 0.15.
    """

    unreliable_failed: float = 0.1
    max_mc_error: float = 0.5
    outside_failed: float = 0.05
    min_values: int = 20
    max_groups: int = 12
    min_in_group: int = 10
    max_named: int = 8
    min_per_parameter: int = 5
    max_ratio: float = 2.0


DEFAULTS = FitCheckSettings()


def estimation_checks(fit: PopulationFit) -> list[Check]:
    """Convergence, Pareto k of the individuals, and Monte Carlo error of the likelihood."""
    error = fit.marginal.minus2ll_mc_error
    return [
        Check("convergence", "passed" if fit.converged else "failed", fit.num_rounds, fit.message),
        _pareto_check(fit.cohort.ids, fit.marginal),
        Check(
            "Monte Carlo error of -2LL",
            "passed" if error < DEFAULTS.max_mc_error else "look",
            error,
            f"The Monte Carlo error is {error:.2f}. Smaller differences of -2LL mean nothing.",
        ),
    ]


def _pareto_check(ids: tuple[str, ...], marginal: MarginalLikelihood) -> Check:
    heavy = has_heavy_tail(marginal.ess, marginal.pareto_k, marginal.num_draws).tolist()
    unreliable = [i for i, x in zip(ids, heavy, strict=True) if x]
    status: Status = "passed"
    words = f"No individual has uneven weights with a Pareto k above {PARETO.limit}."
    if unreliable:
        too_many = len(unreliable) > DEFAULTS.unreliable_failed * len(ids)
        status = "failed" if too_many else "look"
        named = ", ".join(unreliable[: DEFAULTS.max_named])
        more = ", ..." if len(unreliable) > DEFAULTS.max_named else ""
        words = (
            f"{len(unreliable)} individuals have a Pareto k above {PARETO.limit}, so that their "
            f"results are not reliable: {named}{more}."
        )
    return Check("Pareto k of the individuals", status, float(marginal.pareto_k.max()), words)


def standard_error_checks(fit: PopulationFit) -> list[Check]:
    """Whether the standard errors by the curvature and those by the sandwich agree, as they do for
    a right model and many individuals; empty where there are few.
    """
    known = fit.estimated
    few = len(fit.cohort) < DEFAULTS.min_per_parameter * int(known.sum())
    if few or not bool(known.any()) or fit.estimator == "likelihood-free":
        return []
    robust = fit.robust_covariance.diagonal()[known].sqrt()
    ratio = robust / fit.covariance.diagonal()[known].sqrt()
    j = int(ratio.log().abs().argmax())
    factor, name = float(ratio[j]), "standard errors by two methods"
    if max(factor, 1 / factor) < DEFAULTS.max_ratio:
        words = (
            "Those by the curvature and by the sandwich agree within a factor of "
            f"{max(factor, 1 / factor):.2f}."
        )
        return [Check(name, "passed", factor, words, "model")]
    names = [n for n, x in zip(fit.structure.population_names, known, strict=True) if x]
    words = (
        f"The standard error of {names[j]} by the sandwich is {factor:.2f} times that by the "
        "curvature: the data are not distributed as the model says. See "
        "`fit.robust_standard_errors`, and the other checks of the model."
    )
    return [Check(name, "look", factor, words, "model")]


def training_data_check(data: DataCheck) -> Check:
    """Individuals outside what the guide was trained on.

    The model is in doubt, and not the inference, where the only reason is that the model hardly
    produces such data.
    """
    share = len(data.outside) / len(data.ids)
    status: Status = "passed"
    if share > 0:
        status = "failed" if share > DEFAULTS.outside_failed else "look"
    about: About = "model" if data.is_only_unlikely else "inference"
    return Check("data inside the training distribution", status, share, data.verdict, about)


def residual_checks(residuals: Residuals) -> list[Check]:
    """Mean, variance, distribution and trends of the npde, and the spread of the individual
    residuals over predictions and over time; an empty list where there are too few values.

    Trends are tested over the predictions of the population, because those of the individuals
    follow the data; the spread over the predictions by posterior draws, for the same reason.
    """
    tested = residuals.npde.isfinite()  # also of values at a limit, whose ranks are drawn
    npde, times = residuals.npde[tested].numpy(), residuals.times[tested].numpy()
    if len(npde) < DEFAULTS.min_values:
        return []
    p_values = _npde_p_values(residuals, tested)
    drawn, iwres = (
        x[:, tested].numpy() for x in (residuals.drawn_predictions, residuals.drawn_iwres)
    )
    # Other weighted residuals of counts and categories are not normal: their size has a trend.
    is_known = residuals.has_scores or residuals.kind == "continuous"
    if np.isfinite(iwres).all() and is_known:
        p_values["the spread over predictions"] = combined_p_value(
            [_spearman_p_value(np.abs(x), f) for x, f in zip(iwres, drawn, strict=True)]
        )
        p_values["the spread over time"] = combined_p_value(
            [_spearman_p_value(np.abs(x), times) for x in iwres]
        )
    finding = "The residuals deviate from the model in {}."
    advice = "The residual error model or the structural model does not fit."
    return [check_p_values(f"residuals of {residuals.series}", p_values, finding, advice, "model")]


def _npde_p_values(residuals: Residuals, tested: Tensor) -> dict[str, float]:
    """P-values of the mean, variance and distribution of the npde that are tested, and of what they
    have to do with times and predictions.
    """
    npde, times, since_dose, population = (
        x[tested].numpy()
        for x in (
            residuals.npde,
            residuals.times,
            residuals.times_after_dose,
            residuals.population,
        )
    )
    p_values = {
        "the mean": float(scipy.stats.ttest_1samp(npde, 0.0).pvalue),
        "the variance": _variance_p_value(npde),
        "the distribution": float(scipy.stats.kstest(npde, "norm").pvalue),
        "the trend over time": _spearman_p_value(npde, times),
        "the mean at single times": _mean_by_group_p_value(npde, times),
    }
    several_doses = np.ptp(times - since_dose) > 0
    if np.isfinite(since_dose).all() and several_doses:
        p_values["the mean at single times after a dose"] = _mean_by_group_p_value(npde, since_dose)
    if np.isfinite(population).all() and not residuals.reads_others:
        p_values["the trend over predictions"] = _spearman_p_value(npde, population)
        p_values["the mean at single predictions"] = _mean_by_group_p_value(npde, population)
    return p_values


def _variance_p_value(npde: np.ndarray) -> float:
    """Two-sided p-value of variance one."""
    statistic = ((npde - npde.mean()) ** 2).sum()
    below = float(scipy.stats.chi2.cdf(statistic, len(npde) - 1))
    return 2 * min(below, 1 - below)


def _mean_by_group_p_value(errors: np.ndarray, x: np.ndarray) -> float:
    """P-value of the same mean at all times or predictions, by analysis of variance: those that
    many values share are groups of their own, others are in groups of about equal size.
    """
    most = min(DEFAULTS.max_groups, len(errors) // DEFAULTS.min_in_group)
    if most < 2:
        return 1.0
    inner = np.quantile(x, np.arange(1, most) / most, method="lower")
    place = np.searchsorted(np.unique(inner), x, side="left")
    groups = [errors[place == k] for k in np.unique(place)]
    groups = [group for group in groups if len(group) >= DEFAULTS.min_in_group // 2]
    return float(scipy.stats.f_oneway(*groups).pvalue) if len(groups) > 1 else 1.0


def _spearman_p_value(x: np.ndarray, y: np.ndarray) -> float:
    """P-value of no rank correlation; one where ``y`` is constant."""
    if np.ptp(y) == 0:
        return 1.0
    return float(scipy.stats.spearmanr(x, y).pvalue)
