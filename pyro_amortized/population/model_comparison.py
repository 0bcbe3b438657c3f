r"""Comparison of fitted population models.

Two models of the same individual parameters can be scored on the same draws,

.. math:: \log \hat p_A(y_i) - \log \hat p_B(y_i), \qquad
          \mathrm{se}_i^2 \approx \sum_k (\bar w^A_{ik} - \bar w^B_{ik})^2,

so that most of the Monte Carlo error cancels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import scipy.stats
import torch
from torch import Tensor

from ..errors import FitError
from ..runtime.arguments import check_is
from ..sampling.importance_weights import (
    PARETO,
    finite_or_zero_weight,
    importance_estimate,
    log_mean_difference,
)
from .fit_result import PopulationFit
from .likelihood_estimate import MarginalLikelihood

LEAST_SHARE = 0.05  # of the draws that are effective under the other model


@dataclass(frozen=True, eq=False)
class Difference:
    r"""Two models, by their log likelihoods on common draws.

    Args:
        log_likelihood: log p(y_i) of the first less that of the second, shape ``(individual,)``.
        mc_error: Its Monte Carlo error, same shape.
    """

    log_likelihood: Tensor
    mc_error: Tensor

    @property
    def minus2ll(self) -> float:
        """-2 log likelihood of the first less that of the second."""
        return -2 * float(self.log_likelihood.sum())

    @property
    def minus2ll_mc_error(self) -> float:
        """Monte Carlo standard error of :attr:`minus2ll`."""
        return 2 * float(self.mc_error.pow(2).sum().sqrt())


@dataclass(frozen=True)
class LikelihoodRatio:
    r"""A likelihood-ratio test of nested models.

    Args:
        statistic: -2LL of the smaller model less that of the larger.
        mc_error: Its Monte Carlo error.
        degrees_of_freedom: Difference of the numbers of parameters.
        p_value: Upper tail of the chi-squared distribution. Too large (up to twofold per variance)
            where the smaller model sets variances to zero.
    """

    statistic: float
    mc_error: float
    degrees_of_freedom: int
    p_value: float


def difference(first: PopulationFit, second: PopulationFit) -> Difference:
    r"""Difference of two fits' log likelihoods on common draws.

    Each fit's draws serve both models; the two answers are averaged by their errors, per
    individual. An individual whose draws serve neither other model is scored on draws of each
    model's own, with the larger error of that.

    Raises:
        FitError: The fits are of different data, or their individual parameters differ.
    """
    _check_pair(first, second)
    answers = [_apart(first.marginal, second.marginal)]
    for mine, other, sign in ((first, second, 1.0), (second, first, -1.0)):
        individuals = mine.individuals
        with torch.no_grad():
            density = other.structure.log_density(
                individuals.cohort, individuals.unconstrained, other.estimates
            )
        theirs = finite_or_zero_weight(sum(density) - individuals.log_proposal)
        found, error = log_mean_difference(individuals.log_weights, theirs)
        estimate = importance_estimate(theirs)
        poor = (estimate.pareto_k > PARETO.limit) | (estimate.ess < LEAST_SHARE * len(theirs))
        answers.append((sign * found, error.masked_fill(poor, torch.inf)))
    precision = torch.stack([1 / (e**2 + 1e-12) for _, e in answers])
    precision[0] = torch.where(precision[1:].sum(0) > 0, 0.0, precision[0])
    share = precision / precision.sum(0)
    value = torch.stack([d.nan_to_num(0.0, 0.0, 0.0) for d, _ in answers])
    return Difference((share * value).sum(0), precision.sum(0).rsqrt())


def _apart(first: MarginalLikelihood, second: MarginalLikelihood) -> tuple[Tensor, Tensor]:
    """The difference of likelihoods that were found on draws of their own."""
    error = (first.mc_error**2 + second.mc_error**2).sqrt()
    return first.log_likelihood - second.log_likelihood, error


def likelihood_ratio_test(smaller: PopulationFit, larger: PopulationFit) -> LikelihoodRatio:
    r"""Test a model against one that contains it.

    Args:
        smaller: The fit with fewer parameters.
        larger: The fit that contains it.

    Raises:
        FitError: The larger model has no more parameters, or the fits cannot be compared.
    """
    more = larger.num_parameters - smaller.num_parameters
    if more < 1:
        raise FitError(
            f"The larger model has {larger.num_parameters} parameters, the smaller "
            f"{smaller.num_parameters}.",
            "a larger model with more parameters, which contains the smaller one.",
            "exchange the two, or compare them by `compare`.",
        )
    found = difference(smaller, larger)
    p_value = float(scipy.stats.chi2.sf(max(found.minus2ll, 0.0), more))
    return LikelihoodRatio(found.minus2ll, found.minus2ll_mc_error, more, p_value)


@dataclass(frozen=True)
class ComparisonRow:
    r"""One model among several.

    Args:
        name: The model.
        num_parameters: Number of its free population parameters.
        minus2ll: -2 log likelihood.
        difference: -2 log likelihood less that of the best by AIC, on common draws.
        mc_error: Monte Carlo error of the difference.
        aic: Akaike's criterion, relative to the best.
        bic_individuals: Bayesian criterion by the number of individuals, relative to the best's.
        bic_observations: The same by the number of observations.
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
        widths = [max(len(line[j]) for line in lines) for j in range(len(head))]
        return "\n".join(
            "  ".join(
                [f"{line[0]:<{widths[0]}}"]
                + [f"{x:>{w}}" for x, w in zip(line[1:], widths[1:], strict=True)]
            ).rstrip()
            for line in lines
        )


def compare(fits: Mapping[str, PopulationFit]) -> Comparison:
    r"""Compare fits of the same data by AIC and BIC, on common draws.

    Args:
        fits: Fits by name, of one cohort.

    Returns:
        A table in the order of AIC.

    Raises:
        FitError: There are fewer than two fits, or they cannot be compared.
    """
    if len(fits) < 2:
        raise FitError(f"{len(fits)} fits.", "two or more.", "pass {name: fit, ...}.")
    for one, two in pairwise(fits.values()):
        _check_pair(one, two)
    best_name, best = min(fits.items(), key=lambda item: item[1].aic)
    num_observations = sum(best.cohort[n].num_observations for n in best.structure.series)
    rows = []
    for name, fit in fits.items():
        found = difference(fit, best) if name != best_name else None
        apart = 0.0 if found is None else found.minus2ll
        more = fit.num_parameters - best.num_parameters
        rows.append(
            ComparisonRow(
                name,
                fit.num_parameters,
                fit.minus2ll,
                apart,
                0.0 if found is None else found.minus2ll_mc_error,
                apart + 2 * more,
                apart + more * math.log(len(fit.cohort)),
                apart + more * math.log(num_observations),
                fit.converged,
            )
        )
    return Comparison(sorted(rows, key=lambda row: row.aic))


def _check_pair(first: PopulationFit, second: PopulationFit) -> None:
    for fit in (first, second):
        check_is("fit", fit, PopulationFit, "pass what `fit_population` gives.", FitError)
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
    kinds = (first.estimator, second.estimator)
    free = "likelihood-free" in kinds
    if kinds[0] != kinds[1] or (free and first.guide is not second.guide):
        raise FitError(
            f"The fits are {kinds[0]} and {kinds[1]}{', by two guides' if free else ''}.",
            "fits by one estimator, likelihood-free ones by one guide: each guide leaves out "
            "constants of its own.",
            "fit both with the same `estimator=` and guide.",
        )
    names = (first.structure.latent_names, second.structure.latent_names)
    if names[0] != names[1]:
        raise FitError(
            f"The individual parameters of the fits are {names[0]} and {names[1]}.",
            "the same individual parameters.",
            "compare fits that were made with one guide.",
        )
