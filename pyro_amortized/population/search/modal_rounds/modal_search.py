"""Rounds on points about the modes, from which the rounds with draws start.

A round takes 2 d + 1 points of each individual with d parameters in place of some hundred draws,
and has no Monte Carlo error. The more was observed of an individual, the better is the
approximation; the rounds with draws remove whatever error it leaves (decision 073).
"""

from dataclasses import dataclass

from torch import Generator, Tensor

from ....numerics.maximization import Optimum
from ....runtime.random_numbers import make_generator
from ....sampling.refinement_settings import NO_CHAINS, Effort
from ....sampling.weighted_draws import Refinement
from ...likelihood.large_cohorts.summarized_draws import RoundDraws
from ...likelihood.likelihood_choice import is_large
from ...likelihood.likelihood_interface import Likelihood
from ..maximum_search import Search
from ..vanishing_deviations import highest_of_larger, vanishing_coordinates
from .modal_likelihood import ModalLikelihood
from .modal_points import ModalPoints, points_about_modes


@dataclass(frozen=True, eq=False)
class ModalSearch(Search):
    """A search in which points about the modes stand for draws."""

    @classmethod
    def like(cls, search: Search) -> "ModalSearch":
        """The same search with points."""
        return cls(**vars(search))

    def draw(
        self,
        vector: Tensor,
        num_draws: int,
        generator: Generator,
        known: Refinement | None = None,
        effort: Effort = NO_CHAINS,
    ) -> ModalPoints:
        """The points at a population; their number and the effort are always the same."""
        values = self.structure.constrain_population(vector)
        population = {name: x.detach() for name, x in values.items()}
        parts = (self.structure, self.cohort, population, self.scale)
        return points_about_modes(*parts, known, generator)

    draw_for_round = draw

    def larger(self, individuals: RoundDraws, fixed: Tensor) -> Tensor | None:
        """A population in which a standard deviation that is nearly zero, and not fixed, is many
        times as large, and the likelihood is higher, or None. The modes are found again there.
        """
        vector = self.structure.unconstrain_population(individuals.population)
        model = (self.structure, self.cohort)
        likelihood = self.likelihood(individuals)
        held = vanishing_coordinates(*model, likelihood, vector, self.seed) & ~fixed
        generator, before = make_generator(self.seed), self.value_of(individuals)

        def rise(at: Tensor) -> float:
            return self.value_of(self.draw(at, 1, generator, individuals.refinement)) - before

        return highest_of_larger(*model, vector, held, rise)

    def error_of(self, likelihood: Likelihood, optimum: Optimum) -> float:
        """There is no Monte Carlo error."""
        return 0.0

    def likelihood(self, individuals: RoundDraws) -> ModalLikelihood:
        """The likelihood on the points."""
        assert isinstance(individuals, ModalPoints)
        return ModalLikelihood(individuals, self.scale)


def has_modal_rounds(search: Search) -> bool:
    """Whether a fit starts with them: the model has a density, and the cohort is not drawn in
    blocks.
    """
    is_corrected = search.structure.estimator == "corrected"
    return is_corrected and not is_large(search.structure, search.cohort)
