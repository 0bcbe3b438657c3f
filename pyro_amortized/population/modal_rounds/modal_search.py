"""Rounds on points about the modes, from which the rounds with draws start.

A round takes 2 d points of each individual in place of some hundred draws, and has no Monte Carlo
error. The approximation is the better the more an individual was observed; whatever it leaves, the
rounds with draws remove (decision 073).
"""

from dataclasses import dataclass

from torch import Generator, Tensor

from ...sampling.proposals import Refinement
from ...sampling.refinement_settings import NO_CHAINS, Effort
from ..likelihood_choice import is_large
from ..maximum_search import Search
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

    def draw_for_round(
        self,
        vector: Tensor,
        num_draws: int,
        generator: Generator,
        known: Refinement | None = None,
        effort: Effort = NO_CHAINS,
    ) -> ModalPoints:
        """As :meth:`draw`."""
        return self.draw(vector, num_draws, generator, known, effort)

    def likelihood(self, individuals: ModalPoints) -> ModalLikelihood:  # type: ignore[override]
        """The likelihood on the points."""
        return ModalLikelihood(individuals, self.scale)


def has_modal_rounds(search: Search) -> bool:
    """Whether a fit starts with them: the model has a density, no guide gives its draws, and the
    cohort is not drawn in blocks.
    """
    is_corrected = search.structure.estimator == "corrected"
    return is_corrected and search.guide is None and not is_large(search.structure, search.cohort)
