r"""Runs a Pyro model with chosen values of its sites, hidden from the caller's effect handlers."""

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ..cohort import Cohort
from ..errors import AmortizedError, ModelError
from ..runtime.isolation import foreign_program
from ..runtime.solver_context import labelled_rows
from .outcome_kinds import innermost
from .sites import IndividualSite, Model, constrain_site, plain_support, sum_per_individual


class Assign(Messenger):  # type: ignore[misc]
    r"""Effect handler that runs a model with chosen values.

    Unconstrained coordinates are mapped into the support of their site while the model runs, so a
    support may depend on sites that were sampled before. Values that are drawn get the default
    dtype, float64: distributions of constants that were made outside the model draw in float32.

    Args:
        population: Values of population sites and parameters.
        individual: The individual sites, in the order of their coordinates.
        unconstrained: Unconstrained coordinates, shape ``(individual, latent)``.
        values: Values of individual sites by name, in place of ``unconstrained``.
        simulate: Names of observed sites whose data are ignored; their values are drawn, or taken
            from ``observations``.
        observations: Values for these sites, in the layout of the site.
    """

    def __init__(
        self,
        population: Mapping[str, Tensor],
        individual: Mapping[str, IndividualSite] | None = None,
        unconstrained: Tensor | None = None,
        values: Mapping[str, Tensor] | None = None,
        simulate: frozenset[str] = frozenset(),
        observations: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.population = population
        self.individual = individual or {}
        self.values = values or {}
        self.simulate = simulate
        self.observations = observations or {}
        self.pieces: dict[str, Tensor] = {}
        self.jacobians: dict[str, Tensor] = {}
        if unconstrained is not None:
            self.set_individuals(unconstrained)

    def set_individuals(self, unconstrained: Tensor) -> None:
        """Set the coordinates of the individual sites, shape ``(individual, latent)``."""
        sizes = [site.num_unconstrained for site in self.individual.values()]
        self.pieces = dict(zip(self.individual, unconstrained.split(sizes, -1), strict=True))

    def log_abs_det(self) -> Tensor:
        """Sum of the log Jacobians of all individual sites, shape ``(individual,)``.

        It is known after the model has run.
        """
        num = len(next(iter(self.pieces.values())))
        terms = [
            sum_per_individual(self.jacobians[n], s.dim, num) for n, s in self.individual.items()
        ]
        return torch.stack(terms).sum(0)

    def _pyro_param(self, msg: Any) -> None:
        if msg["name"] in self.population:
            msg["value"] = self.population[msg["name"]]
            msg["done"] = False

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.observations:
            msg.update(value=self.observations[name], is_observed=True)
        elif name in self.simulate:
            msg.update(value=None, is_observed=False, done=False)
        elif name in self.population:
            msg.update(value=self.population[name], is_observed=True)
        elif name in self.values:
            msg.update(value=self.values[name], is_observed=True)
        elif name in self.pieces:
            value, self.jacobians[name] = constrain_site(
                self.individual[name], plain_support(msg["fn"]), self.pieces[name]
            )
            msg.update(value=value, is_observed=True)
        # Nuisance sites are never assigned: they keep the dtype that the program expects.
        if msg["value"] is None and not msg["infer"].get("nuisance"):
            value = _drawn(msg)
            is_float = isinstance(value, Tensor) and value.is_floating_point()
            msg["value"] = value.to(torch.get_default_dtype()) if is_float else value


def _drawn(msg: Any) -> Any:
    """A draw of a site; parameters that its distribution cannot have are an error that names it."""
    try:
        return msg["fn"](*msg["args"], **msg["kwargs"])
    except (NotImplementedError, AmortizedError):
        raise
    except (RuntimeError, ValueError) as error:
        kind = type(innermost(msg["fn"])).__name__
        raise ModelError(
            f"The site {msg['name']!r} ({kind}) cannot be drawn: {error}",
            "parameters that the distribution can have, wherever the priors allow them.",
            "look for probabilities that are negative or NaN, cut points that decrease (write them "
            "as a first one and positive steps), scales of zero, and shapes that do not agree.",
        ) from error


class _AllSitesReached(Exception):
    """All wanted sites have a value."""


class _StopAfter(Messenger):  # type: ignore[misc]
    """Stop the model as soon as all wanted sites have a value.

    The dynamics that follow these sites are then not computed.
    """

    def __init__(self, wanted: frozenset[str]) -> None:
        super().__init__()
        self.missing = set(wanted)

    def _pyro_post_sample(self, msg: Any) -> None:
        self.missing.discard(msg["name"])
        if not self.missing:
            raise _AllSitesReached

    _pyro_post_param = _pyro_post_sample


def run_program(
    model: Model,
    cohort: Cohort,
    assign: Assign,
    wanted: frozenset[str] | None = None,
    validate: bool = False,
) -> Trace:
    r"""Trace a model with chosen values; effect handlers of the caller do not see its sites.

    Args:
        model: The model.
        cohort: Its argument.
        assign: The chosen values.
        wanted: The run stops when these sites have values. Default: run to the end.
        validate: Leave Pyro's validation as the caller set it; by default it is off.
    """
    handler = pyro.poutine.trace()
    with foreign_program(validate), labelled_rows(cohort.ids), handler, assign:
        if wanted is None:
            model(cohort)
        elif wanted:
            try:
                with _StopAfter(wanted):
                    model(cohort)
            except _AllSitesReached:
                pass
    return handler.trace
