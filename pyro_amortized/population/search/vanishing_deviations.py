r"""Standard deviations of the individual parameters that cannot be distinguished from zero.

If the data do not show that a parameter varies between individuals, the maximum of the likelihood
lies at a standard deviation of zero, where its logarithm has no maximum. Such a standard deviation
is held where the search has arrived (decision 037).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure
from ...numerics.laplace import DEFAULTS as LAPLACE
from ...runtime.random_numbers import make_generator
from ...sampling.individuals import IndividualPosteriors
from ..following.following_draws import Following
from ..likelihood.exact_likelihood import ExactLikelihood
from ..likelihood.likelihood_choice import gains_from, gains_of_one
from ..likelihood.likelihood_interface import Gains, Likelihood, gains_on_draws
from .flat_directions import FLAT
from .individual_spreads import standard_deviations


@dataclass(frozen=True)
class VanishingSettings:
    """When a standard deviation cannot be distinguished from zero (decision 037)."""

    # A standard deviation depends on a coordinate if its logarithm has a larger slope.
    min_slope: float = 0.3
    # Changes of the log likelihood that count as none: of all individuals, this multiple of the
    # Monte Carlo error included, and the median over the individuals. Where the error alone is
    # larger, the standard deviation is not held: 73 patients with two occasions, 300 draws each,
    # would have held one at a tenth of its estimate, 3.5 log likelihood below the maximum.
    max_total_change: float = 0.2
    allowed_errors: float = 2.0
    max_individual_change: float = 0.1
    # Factors with which a larger standard deviation is looked for.
    factors: tuple[float, ...] = (4.0, 16.0, 64.0, 256.0)
    # Factors with which the value that it is held at is looked for, and the rise of the log
    # likelihood, less one Monte Carlo error, that is worth new draws there. Of 15 individuals, one
    # and a half times the best value left another standard deviation 0.2 standard errors away.
    near_factors: tuple[float, ...] = (1 / 16, 1 / 4, 1 / 2, 0.7, 1.4, 2.0)
    min_rise: float = 0.01
    # Shares of the median of its prior at which new draws show whether a standard deviation that
    # cannot be distinguished from zero has its maximum there. Of 120 individuals with four samples,
    # one was held at 0.008 where the log likelihood is 0.85 lower than at 0.25: the likelihood on
    # the draws at 0.008 was too noisy to show it. And the number of prior draws for this median.
    prior_shares: tuple[float, ...] = (1.0, 1 / 4, 1 / 16)
    num_prior_draws: int = 60
    # Part of a combination from which an individual parameter is named.
    min_share: float = 0.1


VANISHING = VanishingSettings()


def vanishing_coordinates(
    structure: ModelStructure,
    cohort: Cohort,
    likelihood: Likelihood,
    vector: Tensor,
    seed: int,
    flat: Tensor | None = None,
) -> Tensor:
    r"""Coordinates of standard deviations that cannot be distinguished from zero.

    A coordinate is among them if a standard deviation of the individual parameters, or of their
    narrowest combination, depends on it, and if half of this standard deviation does not change the
    likelihood and twice of it does not increase it; or if the scores of the individuals say so: on
    moved draws of many individuals, errors of second order in the moves add up.

    Args:
        structure: The population model.
        cohort: The data.
        likelihood: The likelihood on the draws of a round.
        vector: The population in unconstrained coordinates, shape ``(population,)``.
        seed: Seed of the individuals that show how much the individual parameters vary.
        flat: Coordinates in which the likelihood is known to be flat, same shape: of them, the
            Monte Carlo error of a change does not count against "cannot be distinguished".

    Returns:
        A boolean for every coordinate, shape ``(population,)``.
    """
    deviations = standard_deviations(structure, cohort, vector, seed)
    held, settings = torch.zeros(len(vector), dtype=torch.bool), VANISHING
    flat = torch.zeros_like(held) if flat is None else flat
    with torch.no_grad():
        gains = gains_from(likelihood, structure.constrain_population(vector))

        def change(at: Tensor) -> Change:
            return _change(gains(structure.constrain_population(at)))

        def vanishes(doubling: Tensor, is_flat: bool) -> bool:
            half, most = change(vector - doubling), settings.max_total_change
            least, highest = half.bounds(is_flat)
            unchanged = half.median < settings.max_individual_change
            unchanged = unchanged and highest < most and least > -most  # not where one is NaN
            return unchanged and change(vector + doubling).bounds(is_flat)[1] < most

        for j, unit in enumerate(torch.eye(len(vector), dtype=torch.float64)):
            slopes = deviations.slopes(unit)
            slope = slopes[slopes.abs().argmax()]
            if abs(float(slope)) > settings.min_slope:
                if _is_flat(likelihood.following.scores[:, j] / slope):
                    held[j] = True
                    continue
                held[j] = vanishes(math.log(2) / slope * unit, bool(flat[j]))
    return held


def _is_flat(scores: Tensor) -> bool:
    """Whether no individual's likelihood changes with the logarithm of a standard deviation, by its
    scores ``(individual,)``; not where these are not known. Near zero the likelihood is linear in
    the square of the standard deviation, and half or twice of it change less than the slope.
    """
    known, squares = bool(scores.any()), float(scores.square().sum())
    return (
        known and squares < LAPLACE.flat_information and abs(float(scores.sum())) < FLAT.max_slope
    )


def larger_deviations(
    individuals: IndividualPosteriors, following: Following, vector: Tensor, held: Tensor
) -> Tensor | None:
    r"""A population in which a vanishing standard deviation is many times as large, and the
    likelihood is higher.

    Near zero the likelihood is flat in the logarithm of a standard deviation, also where its
    maximum lies far away. A search that has come there cannot leave it by slopes.

    Args:
        individuals: Draws of a round.
        following: How they follow the population.
        vector: The population in unconstrained coordinates, shape ``(population,)``.
        held: The coordinates that :func:`vanishing_coordinates` gives, same shape.

    Returns:
        The population, same shape, or None.
    """
    structure, cohort = individuals.structure, individuals.cohort
    exact = ExactLikelihood(individuals, following.along_flow())
    with torch.no_grad():
        gains = gains_on_draws(exact, structure.constrain_population(vector))

        def rise(at: Tensor) -> float:
            return _change(gains(structure.constrain_population(at))).lowest

        return highest_of_larger(structure, cohort, vector, held, rise)


def highest_of_larger(
    structure: ModelStructure,
    cohort: Cohort,
    vector: Tensor,
    held: Tensor,
    rise: Callable[[Tensor], float],
) -> Tensor | None:
    """As :func:`larger_deviations`, with a function that gives the rise of the log likelihood from
    ``vector`` to another population, less its Monte Carlo error.
    """
    best, best_change = None, VANISHING.max_total_change
    deviations = standard_deviations(structure, cohort, vector, 0)
    for j in held.nonzero()[:, 0].tolist():
        unit = torch.zeros_like(vector)
        unit[j] = 1.0
        slopes = deviations.slopes(unit)
        slope = slopes[slopes.abs().argmax()]
        for factor in VANISHING.factors:
            at = vector + math.log(factor) / slope * unit
            change = rise(at)
            if change > best_change:
                best, best_change = at, change
    return best


def at_best_values(
    structure: ModelStructure, cohort: Cohort, likelihood: Likelihood, vector: Tensor, held: Tensor
) -> Tensor:
    r"""The population with each vanishing standard deviation where the likelihood is highest of
    some values near it, shape ``(population,)``: what it is held at moves the other estimates.

    Args:
        structure: The population model.
        cohort: The data.
        likelihood: The likelihood on the draws of a round.
        vector: The population in unconstrained coordinates, shape ``(population,)``.
        held: The coordinates that :func:`vanishing_coordinates` gives, same shape.
    """
    deviations = standard_deviations(structure, cohort, vector, 0)
    with torch.no_grad():
        for j in held.nonzero()[:, 0].tolist():
            gains = gains_of_one(likelihood, structure.constrain_population(vector))
            unit = torch.zeros_like(vector)
            unit[j] = 1.0
            slopes = deviations.slopes(unit)
            slope = slopes[slopes.abs().argmax()]
            if _is_flat(likelihood.following.scores[:, j] / slope):
                continue
            places = [vector + math.log(x) / slope * unit for x in VANISHING.near_factors]
            changes = [_change(gains(structure.constrain_population(x))) for x in places]
            rises = [x.total - x.allowed / VANISHING.allowed_errors for x in changes]
            best = max(range(len(places)), key=rises.__getitem__)
            if rises[best] > VANISHING.min_rise:
                vector = places[best]
    return vector


def prior_deviations(
    structure: ModelStructure, cohort: Cohort, vector: Tensor, held: Tensor, seed: int
) -> list[Tensor]:
    r"""Populations in which a vanishing standard deviation is as large as its prior expects, or a
    part of this, and more than twice of what it is.

    Args:
        structure: The population model.
        cohort: The data.
        vector: The population in unconstrained coordinates, shape ``(population,)``.
        held: The coordinates that :func:`vanishing_coordinates` gives, same shape.
        seed: Seed of the draws from the prior.
    """
    generator, found = make_generator(seed), []
    drawn = structure.draw_populations(cohort, VANISHING.num_prior_draws, generator)
    medians = torch.stack([structure.unconstrain_population(x) for x in drawn]).median(0).values
    deviations = standard_deviations(structure, cohort, vector, seed)
    for j in held.nonzero()[:, 0].tolist():
        unit = torch.zeros_like(vector)
        unit[j] = 1.0
        slopes = deviations.slopes(unit)
        slope = float(slopes[slopes.abs().argmax()])
        for share in VANISHING.prior_shares:
            change = float(medians[j] - vector[j]) + math.log(share) / slope
            if change * slope > math.log(2):
                found.append(vector + change * unit)
    return found


def what_vanishes(
    structure: ModelStructure, cohort: Cohort, vector: Tensor, seed: int, place: int
) -> str:
    r"""What varies with a coordinate that :func:`vanishing_coordinates` gives, in words.

    Args:
        structure: The population model.
        cohort: The data.
        vector: The population in unconstrained coordinates, shape ``(population,)``.
        seed: As in :func:`vanishing_coordinates`.
        place: The coordinate.
    """
    deviations = standard_deviations(structure, cohort, vector, seed)
    unit = torch.zeros_like(vector)
    unit[place] = 1.0
    axis = int(deviations.slopes(unit).abs().argmax())
    names = structure.latent_names
    if axis < len(names):
        return f"the standard deviation of {names[axis]}"
    axes = deviations.axes
    share = (axes[:, -1] / axes[:, :-1].diagonal()).tolist()
    terms = [
        f"{x:+.2f} {name}"
        for name, x in zip(names, share, strict=True)
        if abs(x) > VANISHING.min_share
    ]
    return (
        "the individual parameters do not vary independently (their correlation is at its limit): "
        f"the standard deviation of {' '.join(terms)}, in units of their standard deviations,"
    )


class Change(NamedTuple):
    """Change of the log likelihood of all individuals, its allowed Monte Carlo error, and the
    median over the individuals of its absolute value.
    """

    total: float
    allowed: float
    median: float

    @property
    def highest(self) -> float:
        """The largest change that is within the error."""
        return self.total + self.allowed

    @property
    def lowest(self) -> float:
        """The smallest one."""
        return self.total - self.allowed

    def bounds(self, is_flat: bool) -> tuple[float, float]:
        """Between what the change lies with certainty; or the largest and the smallest change, if
        it is known to be about zero, so that the error does not count against it.
        """
        return (self.highest, self.lowest) if is_flat else (self.lowest, self.highest)


def _change(gains: Gains) -> Change:
    allowed = VANISHING.allowed_errors * float(gains.errors.pow(2).sum().sqrt())
    return Change(float(gains.changes.sum()), allowed, float(gains.changes.abs().median()))
