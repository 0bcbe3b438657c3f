"""Limits of the rounds of a fit, and when a round has kept its promise.

References:
    Conn, Gould, Toint (2000), Trust Region Methods.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from .maximum_search import SEARCH, Ascent


@dataclass(frozen=True)
class RoundSettings:
    """When a round has kept its promise."""

    # Parts of the promised gain: if the likelihood on new draws shows less, the round is repeated
    # with tighter limits; if it shows more than the second in several rounds, the next one has
    # wider ones, unless these have failed before. The Monte Carlo error of the gain is allowed for
    # by this multiple, that of the promise once.
    min_kept: float = 0.25
    well_kept: float = 0.75
    num_well_kept: int = 2
    # Rounds in sequence, with all draws, in which the likelihood on new draws did not rise by more
    # than this multiple of its Monte Carlo error: the rounds then end. Where the likelihood is
    # nearly flat in a direction, what the draws of a round promise there is their own error.
    num_idle: int = 2
    idle_errors: float = 2.0
    # A round that promises more is not the last one, whatever the rounds before it have gained.
    max_idle_promise: float = 1.0
    # Multiple of the gain that Monte Carlo error alone promises, below which the rounds of a large
    # cohort end: with eleven parameters its standard deviation is 0.4 of it.
    expected_noise: float = 1.5
    # The same of the gain that the scores alone promise, without any limit: more is a maximum that
    # lies beyond the limits.
    scored_noise: float = 5.0
    # Gain of a round from which the Monte Carlo errors of the estimates say how many draws they
    # need: their errors should be smaller than this part of their standard errors. A smaller
    # increase is not worth further rounds, and a larger one may be due to a few individuals.
    settled_gain: float = 1.0
    max_estimate_error: float = 0.02
    # The same for an estimate whose standard error is more than a part of its prior standard
    # deviation. The log likelihood is then nearly flat, and what few draws leave in its curvature
    # moves the maximum: a standard deviation of 73 patients ended 0.84 standard errors away with
    # 300 draws, and 0.01 with 900.
    max_weak_estimate_error: float = 0.007
    weak_share: float = 0.5
    min_increase: float = 1.3
    max_increase: int = 3
    # With a quadratic likelihood every round leaves about the same share of the distance from the
    # maximum. The rounds also end where the next one is expected to gain less than this part of
    # the smallest gain.
    min_expected: float = 0.02
    # Jumps to a much larger standard deviation, from where the likelihood is flat near zero.
    max_jumps: int = 3
    # Part of a limit from which a round has ended at it.
    at_limit: float = 0.9
    allowed_errors: float = 3.0
    # Which of the largest distances (``SEARCH.max_distances``) a short round has: a posterior
    # standard deviation of an individual.
    short_level: int = 4


ROUNDS = RoundSettings()


class TrustRegion(NamedTuple):
    """Which limits a round has, the widest that have not failed, and the number of rounds in
    sequence that kept their promise well.
    """

    level: int = SEARCH.first_level
    least: int = 0
    num_kept: int = 0

    def narrower(self) -> "TrustRegion | None":
        """After a round that did not keep its promise; None if there are no tighter limits."""
        if self.level == len(SEARCH.max_distances) - 1:
            return None
        return TrustRegion(self.level + 1, self.level + 1)

    def after(self, gain: float, promised: float) -> "TrustRegion":
        """After a round that kept its promise."""
        num_kept = self.num_kept + 1 if gain > ROUNDS.well_kept * promised else 0
        if num_kept < ROUNDS.num_well_kept:
            return self._replace(num_kept=num_kept)
        return TrustRegion(max(self.least, self.level - 1), self.least)

    def withheld(self, ascent: Ascent, is_idle: bool) -> float:
        """The gain that a round might have had within the widest limits that have not failed: its
        own times the ratio of these, if it ended at its limits, else 0. Where new draws have not
        risen for some rounds, it is what the scores promise, if that is more than Monte Carlo
        error.
        """
        likelihood, limits = ascent.likelihood, SEARCH.max_distances[self.level]
        population = likelihood.individuals.structure.constrain_population(ascent.optimum.vector)
        with torch.no_grad():
            distances = zip(likelihood.distances(population), limits, strict=True)
            is_at_limit = any(bool((x > ROUNDS.at_limit * most).any()) for x, most in distances)
        if is_at_limit and is_idle:
            promised = likelihood.following.promised_gain(~ascent.held)
            return promised if promised > ROUNDS.scored_noise * likelihood.following.noise else 0.0
        ratio = SEARCH.max_distances[self.least][0] / limits[0]
        return ratio * ascent.gain if is_at_limit and ratio > 1 else 0.0
