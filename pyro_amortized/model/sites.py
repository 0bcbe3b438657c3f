r"""Sites of a mixed-effects program, and the handler that runs the program with chosen values.

Individual sites are addressed in *unconstrained coordinates*: one row of numbers per individual,
cut into the sites in the order of the program and mapped into each site's support **while the
program runs**, so that a support may depend on what was sampled before it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Size, Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint
from torch.distributions.utils import _sum_rightmost

from ..cohort import Cohort
from ..runtime.isolation import foreign_program
from .fast_log_prob import log_prob_of

PLATE = "individual"
Model = Callable[[Cohort], Any]


@dataclass(frozen=True, eq=False)
class PopulationSite:
    r"""A sample site outside the plate, or a ``pyro.param``.

    Args:
        name: Name of the site.
        shape: Shape of its value.
        support: Support of its value.
        is_param: Whether it is a ``pyro.param`` (which has no prior).
        initial: A value inside the support: the parameter's own, or one draw from the prior.
    """

    name: str
    shape: Size
    support: Constraint
    is_param: bool
    initial: Tensor

    @property
    def num_unconstrained(self) -> int:
        """Number of unconstrained coordinates."""
        return biject_to(self.support).inverse_shape(self.shape).numel()

    def constrain(self, flat: Tensor) -> Tensor:
        """Value in the support from unconstrained coordinates, shape ``(*, num_unconstrained)``."""
        transform = biject_to(self.support)
        return transform(flat.reshape(flat.shape[:-1] + transform.inverse_shape(self.shape)))

    def unconstrain(self, value: Tensor) -> Tensor:
        """Unconstrained coordinates, shape ``(num_unconstrained,)``, of a value in the support."""
        return biject_to(self.support).inv(value).reshape(-1)


@dataclass(frozen=True, eq=False)
class IndividualSite:
    r"""A latent site inside the plate ``individual``.

    Args:
        name: Name of the site.
        dim: Batch dimension of the plate at this site, negative.
        event_dim: Number of event dimensions.
        rest: Shape of one individual's unconstrained value: all dimensions but the individual's.
        plates: Name, size and dimension of the other plates around the site.
    """

    name: str
    dim: int
    event_dim: int
    rest: Size
    plates: tuple[tuple[str, int, int], ...]

    @property
    def num_unconstrained(self) -> int:
        """Number of unconstrained coordinates of one individual."""
        return self.rest.numel()


@dataclass(frozen=True, eq=False)
class ObservedSite:
    r"""An observed site inside the plate ``individual``.

    Args:
        name: Name of the site in the program (with ``obs_mask=`` Pyro appends ``_observed``).
        series: Name of the series in the cohort.
        dim: Batch dimension of the plate at this site, negative.
        event_dim: Number of event dimensions.
        has_density: False where the law can only be simulated.
    """

    name: str
    series: str
    dim: int
    event_dim: int
    has_density: bool = True


def plain_support(fn: Any) -> Constraint:
    """The support of a law; a mixture's is that of its components, which torch wraps."""
    support = fn.support
    return getattr(support, "base_constraint", support) if _is_mixture(fn) else support


def _is_mixture(fn: Any) -> bool:
    return isinstance(fn, torch.distributions.MixtureSameFamily)


def individual_first(x: Tensor, dim: int, event_dim: int = 0) -> Tensor:
    """Move the dimension of the plate to the front: ``(individual, ...)``."""
    return x.movedim(dim - event_dim, 0)


def sum_per_individual(log_prob: Tensor, dim: int, num_individuals: int) -> Tensor:
    """Sum the log density of a site over all batch dimensions but the individual's:
    ``(individual,)``.
    """
    if log_prob.dim() < -dim:
        log_prob = log_prob.expand(num_individuals, *[1] * (-dim - 1))
    rows = log_prob.movedim(dim, 0).reshape(log_prob.shape[dim], -1).sum(1)
    return rows.expand(num_individuals)


class Assign(Messenger):  # type: ignore[misc]
    r"""Run a program with chosen values.

    Args:
        population: Values of population sites and params.
        individual: The individual sites, in the order of their coordinates.
        unconstrained: Unconstrained coordinates, shape ``(individual, latent)``; or
        values: values of individual sites by name.
        simulate: Names of observed sites whose observation is ignored, and drawn or taken from
            ``observations``.
        observations: Values for these sites, in the site's own layout.
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
            sizes = [site.num_unconstrained for site in self.individual.values()]
            self.pieces = dict(zip(self.individual, unconstrained.split(sizes, -1), strict=True))

    def log_abs_det(self) -> Tensor:
        """Log Jacobian of all individual sites together, shape ``(individual,)``, after the program
        has run.
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


def constrain_site(
    site: IndividualSite, support: Constraint, piece: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Map one site's unconstrained coordinates into its support.

    Args:
        site: The site.
        support: Its support at this run.
        piece: Coordinates, shape ``(*, individual, num_unconstrained)``.

    Returns:
        The value in the layout of the site, and the log Jacobian in its batch shape.
    """
    transform = biject_to(support)
    lead = piece.shape[:-1]
    added = transform.domain.event_dim - transform.codomain.event_dim
    free = piece.reshape(lead + site.rest).movedim(len(lead) - 1, site.dim - added - site.event_dim)
    value = transform(free)
    log_abs_det = transform.log_abs_det_jacobian(free, value)
    return value, _sum_rightmost(log_abs_det, log_abs_det.dim() - (value.dim() - site.event_dim))


def unconstrain_site(site: IndividualSite, support: Constraint, value: Tensor) -> Tensor:
    """Unconstrained coordinates, shape ``(individual, num_unconstrained)``, of a value in the
    site's layout.
    """
    transform = biject_to(support)
    free = transform.inv(value)
    added = transform.domain.event_dim - transform.codomain.event_dim
    return free.movedim(site.dim - added - site.event_dim, 0).reshape(
        value.shape[site.dim - site.event_dim], -1
    )


class _Enough(Exception):
    """All wanted sites have been seen."""


class _StopAfter(Messenger):  # type: ignore[misc]
    """Leave the program as soon as all wanted sites have a value (the dynamics behind them need not
    run).
    """

    def __init__(self, wanted: frozenset[str]) -> None:
        super().__init__()
        self.missing = set(wanted)

    def _pyro_post_sample(self, msg: Any) -> None:
        self.missing.discard(msg["name"])
        if not self.missing:
            raise _Enough

    _pyro_post_param = _pyro_post_sample


def run_program(
    model: Model,
    cohort: Cohort,
    assign: Assign,
    wanted: frozenset[str] | None = None,
    validate: bool = False,
) -> Trace:
    r"""Trace a program with chosen values, hidden from handlers outside.

    Args:
        model: The program.
        cohort: Its argument.
        assign: The chosen values.
        wanted: Stop when these sites have values. Default: run to the end.
        validate: Keep Pyro's validation as found.
    """
    handler = pyro.poutine.trace()
    with foreign_program(validate), handler, assign:
        if wanted is None:
            model(cohort)
        elif wanted:
            try:
                with _StopAfter(wanted):
                    model(cohort)
            except _Enough:
                pass
    return handler.trace


def site_log_prob(site: Mapping[str, Any]) -> Tensor:
    """Log density of a traced site, its scale and mask applied."""
    log_prob = log_prob_of(site["fn"], site["value"], *site["args"], **site["kwargs"])
    return pyro.distributions.util.scale_and_mask(log_prob, site["scale"], site["mask"])


def site_mask(site: Mapping[str, Any]) -> Tensor | bool:
    """The mask of a site, from ``.mask(...)`` under any number of wrappers and from
    ``poutine.mask``.
    """
    mask: Tensor | bool = True if site["mask"] is None else site["mask"]
    fn, event_dim = site["fn"], site["fn"].event_dim
    mask = _append_dims(mask, event_dim)
    while hasattr(fn, "base_dist"):
        own = getattr(fn, "_mask", True)
        mask = mask & _append_dims(own, fn.event_dim)
        fn = fn.base_dist
    return mask


def has_density(site: Mapping[str, Any]) -> bool:
    """Whether the distribution of a site has a density (one says otherwise by ``has_density =
    False``).
    """
    fn = site["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return bool(getattr(fn, "has_density", True))


def _append_dims(mask: Tensor | bool, num_dims: int) -> Tensor | bool:
    return mask.reshape(*mask.shape, *[1] * num_dims) if isinstance(mask, Tensor) else mask
