r"""Proposals from Pyro guides that were not trained by this library."""

from typing import Any

import pyro
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import GuideError
from ..model import (
    PLATE,
    ModelStructure,
    Population,
    log_prob_by_individual,
)
from ..runtime.isolation import foreign_program, seeded


class PyroGuideProposal:
    r"""Any Pyro guide of the individual sites as a proposal.

    Args:
        guide: The Pyro guide, a function of a cohort.
        structure: Structure of the model.
        cohort: The data.
        population: Values of all population sites; the guide is conditioned on them.
    """

    def __init__(
        self, guide: Any, structure: ModelStructure, cohort: Cohort, population: Population
    ) -> None:
        self.guide, self.structure = guide, structure
        self.cohort, self.population = cohort, population

    def draw(self, num_draws: int, rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draws in unconstrained coordinates and their log density, from one call of the guide
        with a cohort that contains every individual ``num_draws`` times.
        """
        repeated_cohort = self.cohort[rows].repeat(num_draws)
        conditioned = pyro.poutine.condition(self.guide, data=dict(self.population))
        with foreign_program(), seeded(generator):
            trace = pyro.poutine.trace(conditioned).get_trace(repeated_cohort)
        missing = [name for name in self.structure.individual if name not in trace]
        if missing:
            raise GuideError(
                f"The guide does not sample {missing}.",
                f"a guide that samples {list(self.structure.individual)} in the plate {PLATE!r}.",
                "sample the other sites in the guide, too, under their names in the model.",
            )
        values = {name: trace.nodes[name]["value"].double() for name in self.structure.individual}
        draws = self.structure.unconstrain(repeated_cohort, values, self.population)
        _, jacobian = self.structure.constrain(repeated_cohort, draws, self.population)
        log_prob = log_prob_by_individual(trace, len(repeated_cohort))[1] + jacobian
        shape = (num_draws, len(rows))
        return draws.reshape(*shape, -1), log_prob.reshape(shape)
