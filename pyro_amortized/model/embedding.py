r"""The model as a part of another Pyro model: of a guide, or of the collapsed model."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..cohort import Cohort
from ..errors import ModelError
from .population_parameters import Population
from .program_run import Assign, run_program
from .sites import PLATE, site_log_prob, sum_per_individual
from .structure import ModelStructure

UnconstrainedAt = Callable[[Population], tuple[Tensor, Tensor]]


def collapsed_log_density(
    structure: ModelStructure, cohort: Cohort, unconstrained: UnconstrainedAt
) -> Tensor:
    r"""Log p(y, phi | Psi) for given individual parameters, inside another Pyro model.

    Effect handlers of the caller see the population sites, and no site inside the plate.

    Args:
        structure: The structure of the model.
        cohort: One individual per row.
        unconstrained: Gives the individual parameters at the population that the model has
            sampled, shape ``(row, latent)``, and a term that is added to the result, shape
            ``(row,)``.

    Returns:
        Shape ``(row,)``.
    """
    assign = Assign({}, structure.individual)
    at_population = _AssignAtPopulation(assign, frozenset(structure.population), unconstrained)
    handler = pyro.poutine.trace()
    with (
        pyro.poutine.block(expose=list(structure.population)),
        handler,
        assign,
        at_population,
        pyro.validation_enabled(False),
    ):
        structure.model(cohort)
    sites: dict[str, Any] = {**structure.observed, **structure.individual}
    total = ModelStructure.total(sites, handler.trace, len(cohort)) + assign.log_abs_det()
    return total + at_population.added


class _AssignAtPopulation(Messenger):  # type: ignore[misc]
    """Gives the individual parameters to ``assign`` when the population has its values."""

    def __init__(
        self,
        assign: Assign,
        names: frozenset[str],
        unconstrained: UnconstrainedAt,
    ) -> None:
        super().__init__()
        self.added = torch.zeros((), dtype=torch.float64)
        self.assign, self.names, self.unconstrained = assign, names, unconstrained
        self.population: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.assign.individual and not self.assign.pieces:
            rows, self.added = self.unconstrained(self.population)
            self.assign.set_individuals(rows)

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            self.population[msg["name"]] = msg["value"]

    _pyro_post_param = _pyro_post_sample


def constrain_individuals(
    structure: ModelStructure, cohort: Cohort, unconstrained: Tensor, population: Population
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    r"""Values of the individual sites and their log Jacobians, in the layout of the model.

    Args:
        structure: The structure of the model.
        cohort: N individuals.
        unconstrained: Shape ``(*, individual, latent)``; leading dimensions are plates outside
            the model.
        population: Values of the population sites, with the same leading dimensions.
    """
    assign = Assign(population, structure.individual, unconstrained)
    trace = run_program(structure.model, cohort, assign, frozenset(structure.individual))
    return {name: trace.nodes[name]["value"] for name in structure.individual}, assign.jacobians


def log_prob_by_individual(trace: Trace, num_individuals: int) -> tuple[Tensor, Tensor]:
    r"""Log density of a traced model or guide, outside and inside the plate.

    Args:
        trace: The trace of a model or of any guide.
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
                f"The site {name!r} is in a plate {PLATE!r} of size {frame.size}, with scale "
                f"{scale:g}; the cohort has {num_individuals} individuals.",
                f"a plate {PLATE!r} of size `len(cohort)`, without subsampling or scale.",
                "pass `cohort[rows]` to each step, and `num_individuals=` to the loss.",
            )
        inside = inside + sum_per_individual(site_log_prob(site), frame.dim, num_individuals)
    return outside, inside
