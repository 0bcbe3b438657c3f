r"""Whether a share of the individuals never has the event (cured, immune, not at risk).

With the cumulative hazards m of the individuals under the population, whose scale and shape may be
wrong, survival is :math:`S(m) = e^{-(c\,m)^k}` without a share and :math:`\pi + (1 - \pi)\,S(m)`
with one. Twice the difference of the maxima of the log likelihood is, without a share, zero with
the probability 1/2 and otherwise chi-squared with one degree of freedom: the share lies at the end
of its range.

References:
    Boag (1949), Maximum likelihood estimates of the proportion of patients cured by cancer therapy.
    Self, Liang (1987), Asymptotic properties of maximum likelihood estimators and likelihood ratio
    tests under nonstandard conditions.
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats


@dataclass(frozen=True)
class ImmuneSettings:
    r"""When a share is tested for.

    Args:
        min_events: Fewest events.
        min_without: Fewest individuals that are observed without an event for longer than most
            others need to have it: fewer are outliers, and the statistic has another
            distribution.
        late: Quantile of the hazards of those with an event, beyond which "longer" begins.
        starts: Shares from which the search for the maximum starts.
    """

    min_events: int = 10
    min_without: int = 5
    late: float = 0.9
    starts: tuple[float, ...] = (0.1, 0.4)


DEFAULTS = ImmuneSettings()


def immune_share(lower: np.ndarray, upper: np.ndarray) -> tuple[float, float] | None:
    """The share of individuals that never have the event, and its p-value; None where too few are
    observed for long enough.

    Args:
        lower: Cumulative hazards until the event, or until the end of the observation, shape
            ``(individual,)``.
        upper: The same where the time is known; the end of the interval in which the event lies;
            infinite without an event.
    """
    happened = np.isfinite(upper)
    if happened.sum() < DEFAULTS.min_events:
        return None
    late = np.quantile(upper[happened], DEFAULTS.late)
    if (lower[~happened] > late).sum() < DEFAULTS.min_without:
        return None
    lower, upper = np.maximum(lower, 1e-12), np.maximum(upper, 1e-12)

    def negative(point: np.ndarray) -> float:
        return -_log_likelihood(lower, upper, *point)

    start = np.array([0.0, np.log(happened.sum() / lower.sum())])
    without = scipy.optimize.minimize(lambda x: negative(np.append(x, -np.inf)), start)
    with_share = min(
        (
            scipy.optimize.minimize(negative, np.append(without.x, scipy.special.logit(share)))
            for share in DEFAULTS.starts
        ),
        key=lambda x: float(x.fun),
    )
    statistic = 2 * max(0.0, float(without.fun - with_share.fun))
    return float(scipy.special.expit(with_share.x[2])), float(
        scipy.stats.chi2.sf(statistic, 1) / 2 if statistic > 0 else 1.0
    )


def _log_likelihood(
    lower: np.ndarray, upper: np.ndarray, log_shape: float, log_scale: float, logit: float
) -> float:
    """Of hazards whose scale and shape are others, and of a share without an event."""
    shape = np.exp(np.clip(log_shape, -3.0, 3.0))
    log_share, log_rest = scipy.special.log_expit(logit), scipy.special.log_expit(-logit)

    def hazard(x: np.ndarray) -> np.ndarray:
        power: np.ndarray = np.exp(np.clip(shape * (np.log(x) + log_scale), -50.0, 20.0))
        return power

    none = np.isinf(upper)
    known = ~none & (upper - lower <= 1e-9 * upper)
    between = ~none & ~known
    at_risk = -hazard(lower)
    log_rate = np.log(shape) + shape * (np.log(lower) + log_scale) - np.log(lower)
    total = (log_rest + log_rate + at_risk)[known].sum()
    total += np.logaddexp(log_share, log_rest + at_risk)[none].sum()
    gap = np.maximum(hazard(np.where(between, upper, lower)) + at_risk, 1e-300)
    total += (log_rest + at_risk + np.log(-np.expm1(-gap)))[between].sum()
    return float(total)
