r"""Whether the hazards of groups have the same size and the same course: likelihood ratios.

Under the model the cumulative hazard H at an event is an exponential variable, censored where there
is none. If the hazard of a group rises faster than the model says, :math:`H^k` is one, with k above
one. The likelihoods of

.. math:: \log S(H) = -(H / \lambda(x))^{k(x)}

are compared for k = 1 and any k of all (the course of the hazard), for common :math:`\lambda` and
k, for :math:`\log \lambda` linear in the columns of a
variable (the size of the hazard), and for :math:`\log k` that is linear in them, too (its course).
Events in an interval have the difference of S. The ratios have more power than comparisons of
residuals: for 48 individuals and hazards :math:`t^{0.4}` and :math:`t^{3.2}` of two groups, that of
the course has 0.63 at the level 0.0005, and a comparison of the spreads 0.21.
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats

from ...cohort import Cohort
from ..variables.compared_variables import Variable, variables_of_design
from ..variables.variable_findings import Finding
from ..variables.variable_tests import columns_of, dependence_p_value, known_among, known_values


@dataclass(frozen=True)
class ShapeSettings:
    r"""When hazards are compared.

    Args:
        min_events: Fewest events of a level, and of a half of the individuals for a quantity.
        bartlett: Part of the ratio, divided by the fewest events of a level, by which its mean is
            larger than that of the chi-squared distribution: in simulations of two groups of 12
            individuals, the level 0.005 is then 0.0044, and 0.0088 without it.
        smallest: Smallest hazard, whose logarithm is taken.
        max_move: Largest size of a coefficient.
    """

    min_events: int = 5
    bartlett: float = 0.75
    smallest: float = 1e-6
    max_move: float = 4.0


DEFAULTS = ShapeSettings()


def hazard_findings(
    lower: np.ndarray,
    upper: np.ndarray,
    own: np.ndarray,
    cohort: Cohort,
    advice: tuple[str, str],
) -> list[Finding]:
    """The comparison of the hazards against every variable of the cohort.

    Args:
        lower: Cumulative hazards at the event or at the start of its interval, shape
            ``(individual,)``.
        upper: The same at the end of the interval; equal for a known time, infinite without event.
        own: Rows of these individuals.
        cohort: The data.
        advice: What to do about a size, and about a course of the hazard that depends on a
            variable.
    """
    findings, happened = [], np.isfinite(upper)
    for variable in variables_of_design(cohort):
        known = known_values(variable)[own]
        if happened[known].sum() < 2 * DEFAULTS.min_events:
            continue
        findings.append(_size(lower, upper, own, variable, advice[0]))
        x = variable.values[own]
        if variable.levels:
            enough = [v for v in variable.levels if happened[x == v].sum() >= DEFAULTS.min_events]
            known = np.isin(x, enough)
            fewest = min((int(((x == v) & happened).sum()) for v in enough), default=0)
        else:
            fewest = int(happened[known].sum()) // 2
        if fewest < DEFAULTS.min_events or np.ptp(x[known]) == 0:
            continue
        findings.append(
            _course(lower[known], upper[known], own[known], variable, advice[1], fewest)
        )
    return findings


def common_course(lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
    """Whether the hazard of all rises faster or more slowly than the model says: the exponent of
    the time, and its p-value. Hazards of a model that estimates it have an exponent of about one.

    Args:
        lower: Cumulative hazards at the event or at the start of its interval, shape
            ``(individual,)``.
        upper: The same at the end of the interval; equal for a known time, infinite without event.
    """
    none, fewest = np.zeros((len(lower), 0)), int(np.isfinite(upper).sum())
    gain, found = _gain(lower, upper, none, (1, 2), fewest)
    exponent = float(np.exp(np.clip(found[1], -DEFAULTS.max_move, DEFAULTS.max_move)))
    return exponent, float(scipy.stats.chi2.sf(gain, 1))


def _size(
    lower: np.ndarray, upper: np.ndarray, own: np.ndarray, variable: Variable, advice: str
) -> Finding:
    """Whether the hazard is larger with a variable."""
    known, used = known_among(variable, own)
    low, high = lower[known], upper[known]

    def p_value_of(columns: np.ndarray) -> float:
        return _ratio(low, high, columns, 0, DEFAULTS.min_events)[0]

    p_value = dependence_p_value(variable, used, p_value_of)
    columns, where = [columns_of(variable, used)], [f"per standard deviation of {variable.name}"]
    if variable.levels:
        x = variable.values[used]
        levels = variable.levels if len(variable.levels) > 2 else variable.levels[1:]
        columns = [(x == v).astype(float)[:, None] for v in levels]
        other = "elsewhere" if len(levels) > 1 else f"where it is {_name(variable, 0)}"
        where = [f"where {variable.name} is {variable.level_name(v)} than {other}" for v in levels]
    found = [_ratio(low, high, c, 0, DEFAULTS.min_events) for c in columns]
    best = min(range(len(found)), key=lambda k: found[k][0])
    slope = float(np.clip(found[best][1][0], -DEFAULTS.max_move, DEFAULTS.max_move))
    words = (
        f"the events are {'earlier' if slope > 0 else 'later'} than the model says: the hazard is "
        f"about {np.exp(slope):.2g} times as large {where[best]}"
    )
    return Finding(p_value, words, advice)


def _course(
    lower: np.ndarray,
    upper: np.ndarray,
    own: np.ndarray,
    variable: Variable,
    advice: str,
    fewest: int,
) -> Finding:
    """Whether the hazard has another course with a variable."""
    used = np.isin(np.arange(len(variable.values)), own)
    restricted = variable._replace(values=np.where(used, variable.values, np.nan))
    p_value, slopes = _ratio(lower, upper, columns_of(restricted, used), 1, fewest)
    place = int(np.abs(slopes).argmax())
    where = f"per standard deviation of {variable.name}"
    if restricted.levels:
        where = f"where {variable.name} is {_name(restricted, place + 1)}"
    factor = np.exp(np.clip(slopes[place], -DEFAULTS.max_move, DEFAULTS.max_move))
    words = (
        f"the course of the hazard differs {where}: the exponent of the time is about "
        f"{factor:.2g} times as large"
    )
    return Finding(p_value, words, advice)


def _name(variable: Variable, place: int) -> str:
    return variable.level_name(variable.levels[place])


def _ratio(
    lower: np.ndarray, upper: np.ndarray, columns: np.ndarray, stage: int, fewest: int
) -> tuple[float, np.ndarray]:
    """P-value of the likelihood ratio, and the coefficients of the logarithm of the hazard (stage
    0) or of its exponent (stage 1); ``fewest`` is the number of events of the smallest level.
    """
    num = columns.shape[1]
    sizes = (2, 2 + num, 2 + 2 * num)[: stage + 2]
    gain, found = _gain(lower, upper, columns, sizes, fewest)
    slopes = found[-num:] if stage else -np.exp(found[1]) * found[2:]
    return float(scipy.stats.chi2.sf(gain, num)), slopes


def _gain(
    lower: np.ndarray, upper: np.ndarray, columns: np.ndarray, sizes: tuple[int, ...], fewest: int
) -> tuple[float, np.ndarray]:
    """Twice the difference of the last two maxima of the log likelihood with more and more of the
    parameters, and the last one: the logarithms of the scale and of the exponent, and the
    coefficients of both.
    """
    num = columns.shape[1]
    low, high = (np.log(np.maximum(x, DEFAULTS.smallest)) for x in (lower, upper))
    exact, open_ended = lower == upper, ~np.isfinite(upper)

    def loss(parameters: np.ndarray, size: int) -> float:
        full = np.zeros(2 + 2 * num)
        full[:size] = parameters
        k = np.exp(np.clip(full[1] + columns @ full[2 + num :], -DEFAULTS.max_move, 4.0))
        scale = full[0] + columns @ full[2 : 2 + num]
        start = np.exp(np.minimum(k * (low - scale), 50.0))
        end = np.exp(np.minimum(k * (np.where(open_ended, low, high) - scale), 50.0))
        of_event = np.log(k) + k * (low - scale) - start
        width = np.maximum(-np.expm1(start - end), 1e-300)
        of_interval = -start + np.where(open_ended, 0.0, np.log(width))
        return -float(np.where(exact, of_event, of_interval).sum())

    before, after = np.zeros(sizes[0]), []
    for size in sizes:
        start = np.concatenate([before, np.zeros(size - len(before))])
        found = scipy.optimize.minimize(loss, start, args=(size,), method="BFGS")
        before = found.x
        after.append(float(found.fun))
    return max(0.0, 2 * (after[-2] - after[-1])) * (1 - DEFAULTS.bartlett / fewest), before
