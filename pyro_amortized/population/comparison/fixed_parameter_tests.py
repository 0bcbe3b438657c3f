r"""Score tests of parameters that a fit has fixed, without a further fit.

A program may have a parameter whose fixed value means "no effect": the coefficient of a covariate
that varies over time at 0, a Hill coefficient at 1. With the score U and the observed information I
of the marginal likelihood at the fit, in unconstrained coordinates b of the parameter and
:math:`\psi` of the estimates,

.. math:: T = \tilde U^\top V^{-1} \tilde U, \qquad
    \tilde U = U_b - I_{b\psi} I_{\psi\psi}^{-1} U_\psi, \qquad
    V = I_{bb} - I_{b\psi} I_{\psi\psi}^{-1} I_{\psi b},

is the fall of -2LL that the quadratic promises, and :math:`V^{-1}` about the covariance of the
estimate of b. Where an effect is so strong that the log likelihood is not concave at the fit, the
information is that of the scores of the individuals, :math:`\sum_i U_i U_i^\top`. Far from the fit
the quadratic promises too much, so that the likelihood is maximised over b and :math:`\psi` as
well, on the draws of the fit: the likelihood ratio and the estimate. The draws of the individuals
follow the parameters, so that an effect that they could compensate for has its right information.

References:
    Rao (1948), Large sample tests of statistical hypotheses.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import scipy.special
import torch
from torch import Tensor

from ...errors import FitError
from ...numerics.maximization import observed_information, value_and_gradient
from ...runtime.arguments import check_is
from ...runtime.text_table import text_table
from ...runtime.threads import threads_for
from ..posterior.cohort_size import check_size
from ..results.fit_result import PopulationFit
from .likelihood_profiles import ExpandedMaxima

# Smallest part of the information of a parameter that the estimates of the others must leave: below
# it, differences of double precision resolve no information.
MIN_INFORMATION = 1e-8
# Step of the differences that give the scores of the individuals, in units of a large step.
SCORE_STEP = 1e-4
# A maximum on the draws of the fit counts if it is not farther than this many times the step that
# the quadratic promises: an optimiser that leaves the draws ends anywhere.
MAX_STEP_RATIO = 10.0


@dataclass(frozen=True, eq=False)
class FixedParameterTest:
    r"""The score test of one site that a fit has fixed.

    Args:
        name: Name of the site.
        statistic: Score statistic: the fall of -2LL that the quadratic promises; NaN where the data
            do not determine the site beside the estimates.
        mc_error: Its Monte Carlo standard error; NaN where it is not known.
        ratio: Fall of -2LL at the maximum on the draws of the fit; NaN where this maximum is too
            far from the fit, or the log likelihood is not concave there.
        degrees_of_freedom: Number of parameters of the site.
        p_value: Upper tail of the chi-squared distribution beyond ``ratio``, or beyond
            ``statistic`` where that is NaN.
        estimate: The value at this maximum, or else that of the quadratic, in its support, shape of
            the site.
        standard_error: Its standard error in unconstrained coordinates, shape ``(parameter,)``, by
            the information at the fit.
        by_scores: Whether the information is that of the scores, because the log likelihood is not
            concave at the fit.
    """

    name: str
    statistic: float
    mc_error: float
    ratio: float
    degrees_of_freedom: int
    p_value: float
    estimate: Tensor
    standard_error: Tensor
    by_scores: bool = False


@dataclass(frozen=True, eq=False)
class FixedParameterTests:
    """Score tests of several sites; ``print`` shows the table."""

    tests: tuple[FixedParameterTest, ...]

    def __getitem__(self, name: str) -> FixedParameterTest:
        found = {test.name: test for test in self.tests}
        if name not in found:
            raise FitError(
                f"There is no test of {name!r}.", f"one of {list(found)}.", "correct the name."
            )
        return found[name]

    def __repr__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("parameter", "score", "MC error", "fall of -2LL", "df", "p", "estimate")
        ]
        for x in self.tests:
            value = ", ".join(f"{v:.4g}" for v in x.estimate.reshape(-1).tolist())
            numbers = (f"{y:.3f}" for y in (x.statistic, x.mc_error, x.ratio))
            rest = (str(x.degrees_of_freedom), f"{x.p_value:.2g}", value)
            rows.append((x.name, *numbers, *rest))
        undetermined = [x.name for x in self.tests if math.isnan(x.statistic)]
        strong = [x.name for x in self.tests if math.isnan(x.ratio) and x.name not in undetermined]
        notes = ""
        if undetermined:
            named = ", ".join(undetermined)
            notes += f"\nnan: the data do not determine {named} beside the estimates."
        if strong:
            notes += (
                f"\n{', '.join(strong)}: too strong for the draws of this fit; p is that of the "
                "score, and only a fit with it shows the fall of -2LL."
            )
        return text_table(rows) + notes


def score_tests(
    fit: PopulationFit, names: Sequence[str] | str | None = None
) -> FixedParameterTests:
    r"""Test whether sites that a fit has fixed should be estimated, by their scores.

    Args:
        fit: A fit by maximum likelihood, with ``fixed=``.
        names: Names of fixed sites. Default: all of them, each alone.

    Returns:
        The tests. Where one is significant, fit again without it in ``fixed=`` and compare the fits
        by :func:`~pyro_amortized.population.comparison.model_comparison.likelihood_ratio_test`.

    Raises:
        FitError: A site was not fixed, or at the end of its support; the fit has no standard
            errors, maximised the posterior density, is likelihood-free, or has more than 20,000
            individuals.
    """
    check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.", FitError)
    fit.check_likelihood("A score test")
    check_size(fit, "A score test")
    chosen = list(fit.fixed) if names is None else [names] if isinstance(names, str) else names
    check_fixed(fit, list(chosen))
    with threads_for(fit.individuals.num_draws * fit.cohort.num_values):
        maxima = ExpandedMaxima(fit)
        before = maxima.maximum(fit.vector, fit.estimated).value
        tests = (_test_of(fit, maxima, before, name) for name in chosen)
        return FixedParameterTests(tuple(tests))


def check_fixed(fit: PopulationFit, names: list[str]) -> None:
    r"""Raise unless sites were fixed inside their support, in a fit that has scores.

    Raises:
        FitError: As in :func:`score_tests`.
    """
    unknown = [name for name in names if name not in fit.fixed]
    if unknown or not names:
        raise FitError(
            f"{unknown[0]!r} was not fixed." if unknown else "No parameter of the fit was fixed.",
            f"sites that the fit has fixed: {list(fit.fixed)}.",
            "write the effect into the program as a population site, and fit with "
            '`fixed={"name": torch.tensor(0.0)}`, its value without an effect.',
        )
    for name in names:
        if not bool(fit.vector[fit.structure.coordinates([name])].isfinite().all()):
            raise FitError(
                f"{name!r} was fixed at an end of its support.",
                "a value inside: at an end there is no derivative on both sides.",
                "estimate it, and compare the fits by `likelihood_ratio_test`.",
            )
    if fit.estimator == "likelihood-free" or not bool(fit.estimated.any()):
        found = "is likelihood-free" if fit.estimator == "likelihood-free" else "has no errors"
        raise FitError(
            f"The fit {found}.",
            "a fit by the density of the model, with standard errors.",
            "see `fit.message`; or fit twice and compare the fits by `likelihood_ratio_test`.",
        )


def _test_of(
    fit: PopulationFit, maxima: ExpandedMaxima, before: float, name: str
) -> FixedParameterTest:
    """The test of one site; ``before`` is the maximum without it."""
    likelihood, constrain = maxima.likelihood, fit.structure.constrain_population
    own = fit.structure.coordinates([name])
    places = torch.cat([own.nonzero()[:, 0], fit.estimated.nonzero()[:, 0]])
    num, unit = int(own.sum()), fit.search.scale[places]

    def objective(steps: Tensor) -> Tensor:
        return likelihood(constrain(fit.vector.index_put((places,), at + unit * steps))).sum()

    at, zero = fit.vector[places], torch.zeros_like(unit)
    score = value_and_gradient(objective, zero)[1]
    mine, rest = slice(num), slice(num, None)
    answer, remaining = _remaining(observed_information(objective, zero), num)
    if by_scores := bool(remaining.isnan().any()):
        each = _individual_scores(lambda x: likelihood(constrain(x)), fit.vector, places, unit)
        answer, remaining = _remaining(each.T @ each, num)
    if bool(remaining.isnan().any()):
        return _undetermined(fit, name, num)
    slope = score[mine] - answer.T @ score[rest]
    step = torch.linalg.solve(remaining, slope)
    statistic = float(slope @ step)
    reached, ratio = fit.vector.index_add(0, places[mine], unit[mine] * step), math.nan
    if not by_scores:
        reached, ratio = _reached(fit, maxima, before, own, reached)
    tail = statistic if math.isnan(ratio) else ratio
    contrast = torch.cat([step, -(answer @ step)]) * unit
    direction = torch.zeros_like(fit.vector).index_put((places,), contrast)
    return FixedParameterTest(
        name,
        statistic,
        2 * likelihood.following.slope_error(direction),
        ratio,
        num,
        float(scipy.special.chdtrc(num, tail)),
        constrain(reached)[name],
        torch.linalg.inv(remaining).diagonal().sqrt() * unit[mine],
        by_scores,
    )


def _reached(
    fit: PopulationFit, maxima: ExpandedMaxima, before: float, own: Tensor, promised: Tensor
) -> tuple[Tensor, float]:
    """The maximum over a site and the estimates, and the fall of -2LL to it; the place that the
    quadratic promises and NaN where the maximum is too far away for the draws of the fit.
    """
    best = maxima.maximum(fit.vector, fit.estimated | own)
    move = ((best.vector - fit.vector)[own] / (promised - fit.vector)[own]).abs().amax()
    if move < MAX_STEP_RATIO:
        return best.vector, max(2 * (best.value - before), 0.0)
    return promised, math.nan


def _undetermined(fit: PopulationFit, name: str, num: int) -> FixedParameterTest:
    """The test of a site of which the data say nothing beside the estimates."""
    nothing = torch.full((num,), math.nan, dtype=torch.float64)
    value = torch.full_like(fit.estimates[name], math.nan)
    unknown = (math.nan,) * 3
    return FixedParameterTest(name, *unknown, num, math.nan, value, nothing)


def _remaining(information: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The regression of the first parameters on the others, and what these leave of their
    information; NaN where that is too little to be resolved, or not positive.
    """
    mine, rest = slice(num), slice(num, None)
    answer = torch.linalg.solve(information[rest, rest], information[rest, mine])
    remaining = information[mine, mine] - information[mine, rest] @ answer
    least = float(torch.linalg.eigvalsh((remaining + remaining.T) / 2)[0])
    if not least > MIN_INFORMATION * float(information[mine, mine].diagonal().abs().max()):
        return answer, torch.full_like(remaining, math.nan)
    return answer, remaining


def _individual_scores(
    values: Callable[[Tensor], Tensor], vector: Tensor, places: Tensor, unit: Tensor
) -> Tensor:
    """Derivatives of the log likelihood of every individual, shape ``(individual, parameter)``."""
    columns = []
    with torch.no_grad():
        for place, size in zip(places.tolist(), unit.tolist(), strict=True):
            step = torch.zeros_like(vector)
            step[place] = SCORE_STEP * size
            columns.append((values(vector + step) - values(vector - step)) / (2 * SCORE_STEP))
    return torch.stack(columns, -1)
