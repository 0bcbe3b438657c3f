"""How many draws the rounds of a fit use, what is done for poor ones, and when the rounds end."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...numerics.laplace import Curvature
from ...sampling.refinement_settings import FULL_EFFORT, NO_CHAINS, ROUGH_EFFORT, Effort
from ..likelihood.likelihood_interface import Likelihood
from .estimate_errors import draws_needed
from .maximum_search import Ascent
from .trust_region import ROUNDS


class RoundSchedule(NamedTuple):
    r"""Effort of the rounds.

    Args:
        first_draws: Draws per individual of the first rounds.
        num_draws: Draws per individual of the later ones, and of the result.
        near_gain: Gain of a round below which the next one uses all draws.
        min_gain: Gain of a round with all draws below which the rounds end.
        min_gain_stretched: The same where the draws of all individuals are stretched.
        max_rounds: Largest number of rounds.
        rough: Whether little accuracy is enough.
        search_modes: Whether modes are searched for before the result.
        most_draws: Draws per individual up to which more are made where the Monte Carlo errors of
            the estimates need them.
        result_draws: Draws per individual of the result, where these are more.
    """

    first_draws: int
    num_draws: int
    near_gain: float
    min_gain: float
    min_gain_stretched: float
    max_rounds: int
    rough: bool = False
    search_modes: bool = True
    most_draws: int = 0
    result_draws: int = 0

    def effort(self, near: bool, is_result: bool = False) -> Effort:
        """What is done for individuals whose weights are poor, near the maximum or not."""
        if is_result:
            return FULL_EFFORT
        if self.rough or not near:
            return ROUGH_EFFORT
        return NO_CHAINS._replace(search_modes=self.search_modes)

    def shows_draws_needed(self, ascent: Ascent) -> bool:
        """Whether a round shows how many draws the Monte Carlo errors of the estimates need: one
        with all draws that has settled near the maximum.
        """
        num_draws = ascent.likelihood.individuals.num_draws
        has_settled = ascent.gain <= ROUNDS.settled_gain
        return has_settled and self.num_draws <= num_draws < self.most_draws

    def with_enough_draws(
        self, ascent: Ascent, curvature: Curvature, scale: Tensor
    ) -> "RoundSchedule":
        """More draws, if such a round shows that they are needed; ``scale`` is that of the prior,
        shape ``(population,)``.
        """
        num_draws = ascent.likelihood.individuals.num_draws
        is_weak = curvature.covariance.diagonal().sqrt() > ROUNDS.weak_share * scale
        targets = torch.where(is_weak, ROUNDS.max_weak_estimate_error, ROUNDS.max_estimate_error)
        wanted = draws_needed(ascent, curvature, targets)
        needed = min(self.most_draws, wanted)
        if needed < ROUNDS.min_increase * num_draws:
            return self._replace(most_draws=0)
        return self._replace(num_draws=min(needed, ROUNDS.max_increase * num_draws), most_draws=0)

    def smallest_gain(self, likelihood: Likelihood, num_idle: int) -> float:
        """Gain of a round on these draws below which the rounds end."""
        share = likelihood.following.share_stretched
        least = self.min_gain + share * (self.min_gain_stretched - self.min_gain)
        if num_idle >= ROUNDS.num_idle:
            noise = ROUNDS.expected_noise * likelihood.following.noise
            least = max(least, ROUNDS.max_idle_promise, noise)
        return max(least, ROUNDS.expected_noise * likelihood.noise)
