"""Integrals inside the density of the observations, such as that of a hazard, at the estimates of a
fit: with twice the nodes -2LL should be the same.
"""

import torch

from ...model.program_run import Assign, run_program
from ...runtime.isolation import seeded
from ...sampling.individuals import IndividualPosteriors

# Change of -2LL from which an integral is named: the precision that a fit asks for by default.
MIN_NAMED_CHANGE = 0.1


def quadrature_message(individuals: IndividualPosteriors) -> str:
    """Which integrals need more nodes, as a part of the message of a fit, or "".

    Args:
        individuals: Draws at the estimates.
    """
    structure, cohort = individuals.structure, individuals.cohort.to(dtype=torch.float64)
    if structure.learned_density is not None:
        return ""
    draws = individuals.resampled(1)[0]
    assign = Assign(individuals.population, structure.individual, draws)
    with seeded(0), torch.no_grad():
        trace = run_program(structure.model, cohort, assign)
        found = {
            name: error
            for name in structure.observed
            if (error := _change(trace.nodes[name])) > MIN_NAMED_CHANGE
        }
    return "".join(
        f"; the integral of the hazard of {name!r} changes -2LL by up to {error:.2g} with twice "
        "the nodes (`nlme.integrated_hazard(..., breaks=, num_nodes=)`)"
        for name, error in found.items()
    )


def _change(node: dict[str, object]) -> float:
    """Sum over the individuals of the absolute changes of -2 log density with twice the nodes."""
    distribution = node["fn"]
    if not hasattr(distribution, "quadrature_error"):
        return 0.0
    error = distribution.quadrature_error(node["value"])
    return 0.0 if error is None else 2 * float(error.nan_to_num(0.0, 0.0, 0.0).sum())
