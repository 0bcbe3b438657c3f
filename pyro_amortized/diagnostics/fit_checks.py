r"""Checks of a population fit: how it ended, its data, and its residuals.

Under the right model the normalised prediction distribution errors (npde) of the residuals are
independent and standard normal. Their mean (t test), variance (chi-square test), distribution
(Kolmogorov-Smirnov test) and trends (Spearman correlation) are tested. The absolute individual
weighted residuals must not depend on the prediction.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats

from ..population.fit_result import PopulationFit
from ..population.likelihood_estimate import MarginalLikelihood
from ..sampling.importance_weights import PARETO
from ..sampling.weight_quality import has_heavy_tail
from .check_results import About, Check, Status, check_p_values
from .data_check import DataCheck
from .residual_analysis import Residuals


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
        max_named: Most individuals that a message names.
    """

    unreliable_failed: float = 0.1
    max_mc_error: float = 0.5
    outside_failed: float = 0.05
    min_values: int = 20
    max_named: int = 8


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
    residuals; an empty list where there are too few values.

    Trends are tested over the predictions of the population, because those of the individuals
    follow the data.
    """
    tested = ~residuals.censored & residuals.npde.isfinite()
    npde, times = residuals.npde[tested].numpy(), residuals.times[tested].numpy()
    if len(npde) < DEFAULTS.min_values:
        return []
    p_values = {
        "the mean": float(scipy.stats.ttest_1samp(npde, 0.0).pvalue),
        "the variance": _variance_p_value(npde),
        "the distribution": float(scipy.stats.kstest(npde, "norm").pvalue),
        "the trend over time": _spearman_p_value(npde, times),
    }
    population, individual, iwres = (
        x[tested].numpy() for x in (residuals.population, residuals.individual, residuals.iwres)
    )
    if np.isfinite(population).all() and np.isfinite(iwres).all():
        p_values["the trend over predictions"] = _spearman_p_value(npde, population)
        p_values["the spread over predictions"] = _spearman_p_value(np.abs(iwres), individual)
    finding = "The residuals deviate from the model in {}."
    advice = "The residual error model or the structural model does not fit."
    return [check_p_values(f"residuals of {residuals.series}", p_values, finding, advice, "model")]


def _variance_p_value(npde: np.ndarray) -> float:
    """Two-sided p-value of variance one."""
    statistic = ((npde - npde.mean()) ** 2).sum()
    below = float(scipy.stats.chi2.cdf(statistic, len(npde) - 1))
    return 2 * min(below, 1 - below)


def _spearman_p_value(x: np.ndarray, y: np.ndarray) -> float:
    """P-value of no rank correlation; one where ``y`` is constant."""
    if np.ptp(y) == 0:
        return 1.0
    return float(scipy.stats.spearmanr(x, y).pvalue)
