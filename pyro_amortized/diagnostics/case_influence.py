r"""How far each individual moves the estimates.

To first order, the estimates without individual i are :math:`\hat\Psi - C s_i` away, with the
covariance C of the estimates and the score :math:`s_i` of the individual, the derivative of its log
likelihood (the infinitesimal jackknife). Nothing is fitted again.

References:
    Cook (1986), Assessment of local influence, Journal of the Royal Statistical Society B 48.
"""

import math
from dataclasses import dataclass

import pandas
from torch import Tensor

from ..population.results.fit_result import PopulationFit
from ..runtime.short_lists import first_few
from .check_results import Check


@dataclass(frozen=True)
class CaseInfluenceSettings:
    r"""Which individuals are named.

    Args:
        min_move: Move of an estimate, in standard errors, from which an individual is named ...
        small_cohort: ... and this number divided by the square root of the number of individuals,
            if it is larger: an individual z standard deviations from the mean moves the standard
            deviation of a cohort of N by (z^2 - 1) / sqrt(2 N) standard errors, whatever N. Of 50
            individuals and five such parameters one has z above 4.2 in one of a hundred cohorts.
        max_named: Most individuals that a check names.
    """

    min_move: float = 1.0
    small_cohort: float = 12.0
    max_named: int = 5

    def limit(self, num_individuals: int) -> float:
        """Move from which an individual is named."""
        return max(self.min_move, self.small_cohort / math.sqrt(num_individuals))


DEFAULTS = CaseInfluenceSettings()


@dataclass(frozen=True)
class CaseInfluence:
    r"""Moves of the estimates by each individual. Made by :func:`case_influence`.

    Args:
        ids: Labels of the individuals.
        names: Labels of the estimated parameters, unconstrained.
        moves: Estimate with all individuals less that without one, in standard errors, shape
            ``(individual, parameter)``.
        without: Estimates without each individual, unconstrained, same shape.
        estimates: Estimates with all of them, shape ``(parameter,)``.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    moves: Tensor
    without: Tensor
    estimates: Tensor

    def table(self) -> pandas.DataFrame:
        """One row per individual, the one with the largest move first."""
        largest, place = self.moves.abs().max(1)
        rows = [
            (label, self.names[j], float(self.moves[i, j]), float(self.without[i, j]))
            for i, (label, j) in enumerate(zip(self.ids, place.tolist(), strict=True))
        ]
        columns = ["individual", "parameter", "move in standard errors", "estimate without it"]
        order = largest.argsort(descending=True).tolist()
        return pandas.DataFrame([rows[i] for i in order], columns=columns)


def case_influence(fit: PopulationFit) -> CaseInfluence:
    r"""How far each individual moves the estimates of a fit, by its score.

    Args:
        fit: A fit with standard errors; parameters without one are left out.
    """
    known = fit.estimated
    covariance = fit.covariance[known][:, known]
    shift = fit.scores[:, known].nan_to_num(0.0) @ covariance
    names = tuple(n for n, x in zip(fit.structure.population_names, known, strict=True) if x)
    estimates = fit.vector[known]
    errors = covariance.diagonal().sqrt()
    return CaseInfluence(fit.cohort.ids, names, shift / errors, estimates - shift, estimates)


def case_influence_checks(fit: PopulationFit) -> list[Check]:
    """Individuals that move an estimate far; an empty list without standard errors, and for a
    likelihood that the guide has learned, whose slopes are not exact.
    """
    if not bool(fit.estimated.any()) or fit.estimator == "likelihood-free":
        return []
    influence = case_influence(fit)
    largest = influence.moves.abs().amax(1)
    limit = DEFAULTS.limit(len(influence.ids))
    order = largest.argsort(descending=True).tolist()
    named = [i for i in order if float(largest[i]) > limit]
    value = float(largest.max())
    if not named:
        moving = [i for i in order if float(largest[i]) > DEFAULTS.min_move]
        words = (
            "No individual moves an estimate by more than chance explains in a cohort of this size "
            f"({limit:.1f} standard errors){_moves_of(influence, moving)}"
        )
        return [Check("influence of individuals", "passed", value, words, "model")]
    parts = []
    for i in named:
        j = int(influence.moves[i].abs().argmax())
        parts.append(
            f"{influence.ids[i]} moves {influence.names[j]} by {influence.moves[i, j]:+.1f} "
            f"standard errors (unconstrained estimate {influence.estimates[j]:.3g}, without it "
            f"about {influence.without[i, j]:.3g})"
        )
    listed = first_few(parts, DEFAULTS.max_named, "; ")
    words = f"Individual {listed}. Look at its data, and fit without it."
    return [Check("influence of individuals", "look", value, words, "model")]


def _moves_of(influence: CaseInfluence, rows: list[int]) -> str:
    """The end of a sentence, and individuals that move an estimate as far as chance explains."""
    if not rows:
        return f", and none by more than {DEFAULTS.min_move:g}."
    moves = []
    for i in rows:
        j = int(influence.moves[i].abs().argmax())
        moves.append(f"{influence.ids[i]} ({influence.names[j]} {influence.moves[i, j]:+.1f})")
    return f". By more than {DEFAULTS.min_move:g}: {first_few(moves, DEFAULTS.max_named)}."
