r"""Comparison of fitted population models.

Two models of the same individual parameters can be scored on the same draws,

.. math:: \log \hat p_A(y_i) - \log \hat p_B(y_i), \qquad
          \mathrm{se}_i^2 \approx \sum_k (\bar w^A_{ik} - \bar w^B_{ik})^2,

so that most of the Monte Carlo error cancels; :math:`\bar w` are normalised weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import scipy.special
import torch
from torch import Tensor

from ...errors import FitError
from ...runtime.arguments import check_is
from ...runtime.text_table import text_table
from ...sampling.importance_weights import (
    PARETO,
    finite_or_zero_weight,
    importance_estimate,
    log_mean_difference,
)
from ..levels.level_comparison import AnyFit, SeparateDifference, level_difference
from ..levels.level_result import LevelFit
from ..likelihood.likelihood_estimate import MarginalLikelihood
from ..results.fit_result import PopulationFit


@dataclass(frozen=True)
class ComparisonSettings:
    r"""When the draws of one model can be used for another.

    Args:
        min_efficiency: Smallest effective share of an individual's draws under the other model.
        min_squared_error: Added to squared errors, so that the weights of exact differences are
            finite.
    """

    min_efficiency: float = 0.05
    min_squared_error: float = 1e-12


COMPARISON = ComparisonSettings()


@dataclass(frozen=True, eq=False)
class Difference:
    r"""The difference of the log likelihoods of two models on common draws.

    Args:
        log_likelihood: Log p(y_i) of the first minus that of the second, shape ``(individual,)``.
        mc_error: Its Monte Carlo standard error, same shape.
    """

    log_likelihood: Tensor
    mc_error: Tensor

    @property
    def minus2ll(self) -> float:
        """-2 log likelihood of the first minus that of the second."""
        return -2 * float(self.log_likelihood.sum())

    @property
    def minus2ll_mc_error(self) -> float:
        """Monte Carlo standard error of :attr:`minus2ll`."""
        return 2 * float(self.mc_error.pow(2).sum().sqrt())


@dataclass(frozen=True)
class LikelihoodRatio:
    r"""A likelihood-ratio test of nested models.

    Args:
        statistic: -2LL of the smaller model minus that of the larger.
        mc_error: Its Monte Carlo standard error.
        degrees_of_freedom: Difference of the numbers of parameters.
        p_value: Upper tail of the chi-squared distribution. It is too large, by a factor of up to
            two per variance, if the smaller model sets variances to zero.
    """

    statistic: float
    mc_error: float
    degrees_of_freedom: int
    p_value: float


def difference(first: PopulationFit, second: PopulationFit) -> Difference:
    r"""Difference of the log likelihoods of two fits on common draws.

    The draws of each fit are weighted under both models, and the two differences are averaged with
    weights by their errors, for every individual separately. Where the difference of the separate
    likelihoods, which have control variates, has the smaller error, it is taken instead; also where
    the draws of neither fit can be used for the other model.

    Args:
        first: A fit.
        second: A fit of the same data, with the same individual parameters.

    Raises:
        FitError: The fits are of different data, their individual parameters differ, or their
            estimators differ.
    """
    _check_pair(first, second)
    separate = _separate_difference(first.marginal, second.marginal)
    on_first = _common_difference(first, second)
    on_second = _common_difference(second, first)
    differences = (on_first, (-on_second[0], on_second[1]))
    smallest = COMPARISON.min_squared_error
    precision = torch.stack([1 / (error**2 + smallest) for _, error in differences])
    value = torch.stack([d.nan_to_num(0.0, 0.0, 0.0) for d, _ in differences])
    total = precision.sum(0)
    common = (precision * value).sum(0) / total.clamp(min=smallest), total.rsqrt()
    is_common = common[1] < separate[1]
    return Difference(
        *(torch.where(is_common, x, y) for x, y in zip(common, separate, strict=True))
    )


def _common_difference(fit: PopulationFit, other: PopulationFit) -> tuple[Tensor, Tensor]:
    """The difference to another fit on the draws of a fit, and its error: infinite where the draws
    cannot be used for the other model.
    """
    individuals = fit.individuals
    with torch.no_grad():  # the other model sees its own covariates, doses and times
        density = other.structure.log_density(
            other.individuals.cohort, individuals.unconstrained, other.estimates
        )
    log_weights = finite_or_zero_weight(density.total - individuals.log_proposal)
    log_ratio, error = log_mean_difference(individuals.log_weights, log_weights)
    estimate = importance_estimate(log_weights)
    poor = estimate.pareto_k > PARETO.limit
    poor |= estimate.ess < COMPARISON.min_efficiency * len(log_weights)
    return log_ratio, error.masked_fill(poor, torch.inf)


def _separate_difference(
    first: MarginalLikelihood, second: MarginalLikelihood
) -> tuple[Tensor, Tensor]:
    """The difference of likelihoods on the draws of each fit, and its error."""
    error = (first.mc_error**2 + second.mc_error**2).sqrt()
    return first.log_likelihood - second.log_likelihood, error


def likelihood_ratio_test(smaller: AnyFit, larger: AnyFit) -> LikelihoodRatio:
    r"""Test a model against a larger model that contains it.

    Args:
        smaller: The fit of the model with fewer parameters.
        larger: The fit of the model that contains it. Either may have a level above the
            individuals: a fit without the level, against one with it, tests whether its units
            differ.

    Returns:
        The test statistic with its Monte Carlo error, and the p value.

    Raises:
        FitError: The larger model does not have more parameters, or the fits cannot be compared.
    """
    degrees_of_freedom = larger.num_parameters - smaller.num_parameters
    if degrees_of_freedom < 1:
        raise FitError(
            f"The larger model has {larger.num_parameters} parameters, the smaller "
            f"{smaller.num_parameters}.",
            "a larger model with more parameters, which contains the smaller one.",
            "exchange the two, or compare them by `compare`.",
        )
    change = _difference_of(smaller, larger)
    statistic = change.minus2ll
    p_value = float(scipy.special.chdtrc(degrees_of_freedom, max(statistic, 0.0)))
    return LikelihoodRatio(statistic, change.minus2ll_mc_error, degrees_of_freedom, p_value)


@dataclass(frozen=True)
class ComparisonRow:
    r"""One model among several.

    Args:
        name: The model.
        num_parameters: Number of its free population parameters.
        minus2ll: -2 log likelihood.
        difference: -2 log likelihood minus that of the best model by AIC, on common draws.
        mc_error: Monte Carlo standard error of the difference.
        aic: Akaike's information criterion minus that of the best model.
        bic_individuals: Bayesian information criterion with the number of individuals, minus that
            of the best model.
        bic_observations: The same with the number of observations.
        converged: Whether the fit converged.
    """

    name: str
    num_parameters: int
    minus2ll: float
    difference: float
    mc_error: float
    aic: float
    bic_individuals: float
    bic_observations: float
    converged: bool


@dataclass(frozen=True)
class Comparison:
    """Models in the order of AIC; ``print`` shows the table."""

    rows: list[ComparisonRow]

    def __str__(self) -> str:
        head = ("model", "P", "-2LL", "difference", "MC error", "AIC", "BIC ind", "BIC obs", "")
        lines = [head] + [
            (
                r.name,
                str(r.num_parameters),
                f"{r.minus2ll:.2f}",
                f"{r.difference:.2f}",
                f"{r.mc_error:.2f}",
                f"{r.aic:.2f}",
                f"{r.bic_individuals:.2f}",
                f"{r.bic_observations:.2f}",
                "" if r.converged else "NOT CONVERGED",
            )
            for r in self.rows
        ]
        return text_table(lines)


def compare(fits: Mapping[str, AnyFit]) -> Comparison:
    r"""Compare fits of the same data by AIC and BIC, on common draws.

    Args:
        fits: Fits by name, of one cohort. Fits with a level above the individuals are compared on
            draws of their own.

    Returns:
        A table in the order of AIC.

    Raises:
        FitError: There are fewer than two fits, or they cannot be compared.
    """
    if len(fits) < 2:
        raise FitError(f"{len(fits)} fits.", "two or more.", "pass {name: fit, ...}.")
    for one, two in pairwise(fits.values()):
        _check_comparable(one, two)
    best_name, best = min(fits.items(), key=lambda item: item[1].aic)
    num_observations = best.structure.num_observations(best.cohort)
    rows = []
    for name, fit in fits.items():
        change = _difference_of(fit, best) if name != best_name else None
        minus2ll = 0.0 if change is None else change.minus2ll
        extra = fit.num_parameters - best.num_parameters
        rows.append(
            ComparisonRow(
                name=name,
                num_parameters=fit.num_parameters,
                minus2ll=fit.minus2ll,
                difference=minus2ll,
                mc_error=0.0 if change is None else change.minus2ll_mc_error,
                aic=minus2ll + 2 * extra,
                bic_individuals=minus2ll + extra * math.log(len(fit.cohort)),
                bic_observations=minus2ll + extra * math.log(num_observations),
                converged=fit.converged,
            )
        )
    return Comparison(sorted(rows, key=lambda row: row.aic))


def _difference_of(first: AnyFit, second: AnyFit) -> Difference | SeparateDifference:
    """The difference of -2LL, on common draws unless a fit has a level above the individuals."""
    if isinstance(first, PopulationFit) and isinstance(second, PopulationFit):
        return difference(first, second)
    _check_comparable(first, second)
    return level_difference(first, second)


def _check_comparable(first: AnyFit, second: AnyFit) -> None:
    """Raise unless two fits are of the same data and, without a level, of the same parameters."""
    fix = "pass what `fit_population` or `fit_levels` gives."
    for fit in (first, second):
        check_is("fit", fit, (PopulationFit, LevelFit), fix, FitError)
    if isinstance(first, PopulationFit) and isinstance(second, PopulationFit):
        _check_pair(first, second)
        return
    _check_data(first, second)


def _check_pair(first: PopulationFit, second: PopulationFit) -> None:
    for fit in (first, second):
        check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.", FitError)
    _check_data(first, second)
    kinds = (first.estimator, second.estimator)
    free = "likelihood-free" in kinds
    if kinds[0] != kinds[1] or (free and first.guide is not second.guide):
        raise FitError(
            f"The fits are {kinds[0]} and {kinds[1]}{', by two guides' if free else ''}.",
            "fits by one estimator, and likelihood-free fits by one guide: the missing constants "
            "differ between guides.",
            "fit both with the same `estimator=` and guide.",
        )
    names = (first.structure.latent_names, second.structure.latent_names)
    if names[0] != names[1]:
        raise FitError(
            f"The individual parameters of the fits are {names[0]} and {names[1]}.",
            "the same individual parameters.",
            "compare fits that were made with one guide.",
        )


def _check_data(first: AnyFit, second: AnyFit) -> None:
    """Raise unless two fits are of the same data."""
    same = first.cohort is second.cohort or (
        first.cohort.ids == second.cohort.ids
        and all(
            name in second.cohort
            and torch.equal(s.values, second.cohort[name].values)
            and torch.equal(s.observed, second.cohort[name].observed)
            for name, s in first.cohort.series.items()
        )
    )
    if not same:
        raise FitError(
            "The fits are of different data.",
            "fits of one cohort.",
            "fit both models to the same cohort.",
        )
