r"""The program as a part of another Pyro program: of a guide, of the collapsed model."""

from typing import Any

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..cohort import Cohort
from ..errors import ModelError
from .population_parameters import Population
from .sites import PLATE, Assign, run_program, site_log_prob, sum_per_individual
from .structure import ModelStructure


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


def log_prob_by_individual(trace: Trace, num_individuals: int) -> tuple[Tensor, Tensor]:
    r"""Log density of a traced program or guide, apart for the plate.

    Args:
        trace: Of a model or of any guide.
        num_individuals: Size of the plate ``individual``.

    Returns:
        The sum over all sites outside the plate, and the sums over those inside, shape
        ``(individual,)``.

    Raises:
        ModelError: The plate has another size, or is subsampled or scaled.
    """
    outside = torch.zeros((), dtype=torch.float64)
    inside = torch.zeros(num_individuals, dtype=torch.float64)
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        frame = next((f for f in site["cond_indep_stack"] if f.name == PLATE), None)
        if frame is None:
            outside = outside + site_log_prob(site).sum()
            continue
        scale = float(torch.as_tensor(site["scale"]))
        if frame.size != num_individuals or scale != 1.0:
            raise ModelError(
                f"Site {name!r} stands in a plate {PLATE!r} of size {frame.size}, with scale "
                f"{scale:g}, where the cohort has {num_individuals} individuals.",
                f"a plate {PLATE!r} of size `len(cohort)`, without subsampling or scale.",
                "step on `cohort[rows]`, and pass `num_individuals=` to the loss.",
            )
        inside = inside + sum_per_individual(site_log_prob(site), frame.dim, num_individuals)
    return outside, inside
