r"""Checks of a population fit: how it ended, its standard errors, its data, and its residuals.

Under the right model the normalised prediction distribution errors (npde) of the residuals are
independent and standard normal. Their mean (t test), variance (chi-square test), distribution
(Kolmogorov-Smirnov test), trends (Spearman correlation) and the means at single times and
predictions (analysis of variance) are tested. The absolute individual
weighted residuals of posterior draws must not depend on the prediction, or on time.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats
from torch import Tensor
from torch.distributions import constraints

from ..population.likelihood.likelihood_estimate import MarginalLikelihood
from ..population.results.fit_result import PopulationFit
from ..runtime.short_lists import first_few
from ..sampling.importance_weights import PARETO
from ..sampling.weight_quality import has_heavy_tail
from .check_results import About, Check, Status, check_p_values, combined_p_value
from .data_check import DataCheck
from .measurements.residual_analysis import Residuals


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
        max_log_error: Standard error of a logarithm from which it is not compared: the likelihood
            is not nearly a parabola over a factor of e.
        max_error_of_error: Relative Monte Carlo error of a standard error, likewise.
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
    max_log_error: float = 1.0
    max_error_of_error: float = 0.3


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
        words = (
            f"{len(unreliable)} individuals have a Pareto k above {PARETO.limit}, so that their "
            f"results are not reliable: {first_few(unreliable, DEFAULTS.max_named)}."
        )
    return Check("Pareto k of the individuals", status, float(marginal.pareto_k.max()), words)


def standard_error_checks(fit: PopulationFit) -> list[Check]:
    """Whether the standard errors by the curvature and those by the sandwich agree, as they do for
    a right model and many individuals; empty where there are few.
    """
    few = len(fit.cohort) < DEFAULTS.min_per_parameter * int(fit.estimated.sum())
    known = _determined(fit)
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


def _determined(fit: PopulationFit) -> Tensor:
    """Which parameters have a standard error that can be compared, shape ``(population,)``: its
    Monte Carlo error is small and, of a bounded parameter, whose coordinate is a logarithm, it is
    not large itself. Near a limit, as a standard deviation of nearly zero, there is no curvature.
    """
    errors = fit.covariance.diagonal().sqrt()
    bounded = [
        n
        for n, site in fit.structure.population.items()
        if getattr(site.support, "base_constraint", site.support) is not constraints.real
    ]
    is_wide = fit.structure.coordinates(bounded) & (errors > DEFAULTS.max_log_error)
    is_noisy = fit.standard_error_errors > DEFAULTS.max_error_of_error
    return fit.estimated & ~is_wide & ~is_noisy


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
    tests = _npde_tests(residuals, tested)
    drawn, iwres = (
        x[:, tested].numpy() for x in (residuals.drawn_predictions, residuals.drawn_iwres)
    )
    # Other weighted residuals of counts and categories are not normal: their size has a trend.
    is_known = residuals.has_scores or residuals.kind == "continuous"
    if np.isfinite(iwres).all() and is_known:
        over = {"predictions": drawn, "time": np.broadcast_to(times, drawn.shape)}
        for name, x in over.items():
            several = [_spearman(np.abs(r), f) for r, f in zip(iwres, x, strict=True)]
            p_value = combined_p_value([t.p_value for t in several])
            tests[f"the spread over {name}"] = _Tested(p_value, several[0].words)
    p_values = {f"{n} ({t.words})" if t.words else n: t.p_value for n, t in tests.items()}
    finding = "The residuals deviate from the model in {}."
    advice = "The residual error model or the structural model does not fit."
    return [check_p_values(f"residuals of {residuals.series}", p_values, finding, advice, "model")]


class _Tested(NamedTuple):
    """A p-value, and the deviation in words."""

    p_value: float
    words: str = ""


def _npde_tests(residuals: Residuals, tested: Tensor) -> dict[str, _Tested]:
    """Tests of the mean, variance and distribution of the npde that are tested, and of what they
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
    by_mean = float(scipy.stats.ttest_1samp(npde, 0.0).pvalue)
    tests = {
        "the mean": _Tested(by_mean, _side(float(npde.mean()))),
        "the variance": _Tested(_variance_p_value(npde), f"{npde.var():.2f} in place of 1"),
        "the distribution": _Tested(float(scipy.stats.kstest(npde, "norm").pvalue)),
        "the trend over time": _spearman(npde, times),
        "the mean at single times": _mean_by_group(npde, times, "times"),
    }
    several_doses = np.ptp(times - since_dose) > 0
    if np.isfinite(since_dose).all() and several_doses:
        tests["the mean at single times after a dose"] = _mean_by_group(
            npde, since_dose, "times after a dose"
        )
    if np.isfinite(population).all() and not residuals.reads_others:
        tests["the trend over predictions"] = _spearman(npde, population)
        tests["the mean at single predictions"] = _mean_by_group(npde, population, "predictions")
    return tests


def _side(mean: float) -> str:
    """A mean deviation in words."""
    side = "higher" if mean > 0 else "lower"
    return f"values are {side} than predicted, by {abs(mean):.2f} standard deviations"


def _variance_p_value(npde: np.ndarray) -> float:
    """Two-sided p-value of variance one."""
    statistic = ((npde - npde.mean()) ** 2).sum()
    below = float(scipy.stats.chi2.cdf(statistic, len(npde) - 1))
    return 2 * min(below, 1 - below)


def _mean_by_group(errors: np.ndarray, x: np.ndarray, name: str) -> _Tested:
    """The test of the same mean at all times or predictions, by analysis of variance: those that
    many values share are groups of their own, others are in groups of about equal size. The words
    are about the group that deviates most.
    """
    most = min(DEFAULTS.max_groups, len(errors) // DEFAULTS.min_in_group)
    if most < 2:
        return _Tested(1.0)
    inner = np.quantile(x, np.arange(1, most) / most, method="lower")
    place = np.searchsorted(np.unique(inner), x, side="left")
    rows = [np.flatnonzero(place == k) for k in np.unique(place)]
    rows = [own for own in rows if len(own) >= DEFAULTS.min_in_group // 2]
    if len(rows) < 2:
        return _Tested(1.0)
    p_value = float(scipy.stats.f_oneway(*(errors[own] for own in rows)).pvalue)
    far = max(rows, key=lambda own: abs(errors[own].mean()) * len(own) ** 0.5)
    low, high = float(x[far].min()), float(x[far].max())
    where = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    return _Tested(p_value, f"{_side(float(errors[far].mean()))}, at {name} of {where}")


def _spearman(x: np.ndarray, y: np.ndarray) -> _Tested:
    """The test of no rank correlation; its p-value is one where ``y`` is constant."""
    if np.ptp(y) == 0:
        return _Tested(1.0)
    found = scipy.stats.spearmanr(x, y)
    return _Tested(float(found.pvalue), f"rank correlation {found.statistic:+.2f}")
