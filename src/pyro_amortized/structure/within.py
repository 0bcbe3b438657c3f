r"""The program as a part of another Pyro program: of a guide, of the collapsed model."""

from typing import Any

import pyro
from torch import Tensor

from ..cohort import Cohort
from .model import ModelStructure
from .roles import Population
from .sites import Assign, run_program


def collapsed_log_density(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor
) -> Tensor:
    r"""Log p(y, phi | Psi) with the individual parameters held fixed, as part of the Pyro program
    around it.

    The population sites stay visible to the handlers outside, everything in the plate is hidden
    from them.

    Args:
        structure: The program.
        cohort: As many individuals as rows.
        unconstrained: Shape ``(row, latent)``.

    Returns:
        Shape ``(row,)``.
    """
    assign = Assign({}, structure.individual, unconstrained)
    handler = pyro.poutine.trace()
    with (
        pyro.poutine.block(expose=list(structure.population)),
        handler,
        assign,
        pyro.validation_enabled(False),
    ):
        structure.model(cohort)
    sites: dict[str, Any] = {**structure.observed, **structure.individual}
    return ModelStructure.total(sites, handler.trace, len(cohort)) + assign.log_abs_det()


def constrain_individuals(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    r"""Values of the individual sites and their log Jacobians, in the program's own layout.

    Args:
        structure: The program.
        cohort: N individuals.
        unconstrained: Shape ``(*, individual, latent)``; leading dimensions are plates outside the
            program.
        population: Values of the population sites, with the same leading dimensions.
    """
    assign = Assign(population, structure.individual, unconstrained)
    trace = run_program(structure.model, cohort, assign, frozenset(structure.individual))
    return {name: trace.nodes[name]["value"] for name in structure.individual}, assign.jacobians
