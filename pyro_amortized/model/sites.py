r"""The sites of a mixed-effects model: their shapes, supports, masks and log densities.

Values of individual sites are also given in *unconstrained coordinates*: one row of numbers per
individual, which is split into the sites in the order of the model. :func:`constrain_site` maps
the coordinates of one site into its support.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyro
import torch
from torch import Size, Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import IndependentTransform, Transform, identity_transform

from ..cohort import Cohort
from ..numerics.small_sums import sum_last
from .fast_log_prob import log_prob_of
from .outcome_kinds import OutcomeKind, append_dims, values_mask

PLATE = "individual"
Model = Callable[[Cohort], Any]


@dataclass(frozen=True, eq=False)
class PopulationSite:
    r"""A sample site outside the plate ``individual``, or a ``pyro.param``.

    Args:
        name: Name of the site.
        shape: Shape of its value.
        support: Support of its value.
        is_param: Whether it is a ``pyro.param`` (which has no prior).
        initial: A value inside the support: the value of the ``pyro.param``, or one draw from the
            prior.
        labels: Names of the entries of the value, or of the rows of a matrix, from
            ``infer={"labels": [...]}``; or empty.
        scales: For each entry ``"log"`` (a logarithm), ``"sd of log"`` (the standard deviation of
            one), ``"sd"`` or ``""``, from ``infer={"scale": ...}``; or empty.
    """

    name: str
    shape: Size
    support: Constraint
    is_param: bool
    initial: Tensor
    labels: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()

    @cached_property
    def unconstrained_shape(self) -> Size:
        """Shape of the unconstrained value."""
        # Not `inverse_shape`, which imports SymPy, half a second.
        return biject_to(self.support).inv(self.initial).shape

    @property
    def num_unconstrained(self) -> int:
        """Number of unconstrained coordinates."""
        return self.unconstrained_shape.numel()

    @property
    def coordinate_names(self) -> list[str]:
        """A name for each unconstrained coordinate."""
        return entry_names(self.name, self.num_unconstrained, self.labels)

    @property
    def entry_names(self) -> list[str]:
        """A name for each entry of the value."""
        return entry_names(self.name, self.shape.numel(), self.labels)

    def constrain(self, flat: Tensor) -> Tensor:
        """Value in the support from unconstrained coordinates, shape ``(*, num_unconstrained)``."""
        transform = biject_to(self.support)
        return transform(flat.reshape(flat.shape[:-1] + self.unconstrained_shape))

    def unconstrain(self, value: Tensor) -> Tensor:
        """Unconstrained coordinates, shape ``(*, num_unconstrained)``, of values in the support,
        shape ``(*, *shape)``.
        """
        batch = value.shape[: value.dim() - len(self.shape)]
        return biject_to(self.support).inv(value).reshape(*batch, -1)


@dataclass(frozen=True, eq=False)
class IndividualSite:
    r"""A latent site inside the plate ``individual``.

    Args:
        name: Name of the site.
        dim: Batch dimension of the plate at this site, negative.
        event_dim: Number of event dimensions.
        rest: Shape of one individual's unconstrained value: all dimensions except the individual's.
        plates: Name, size and dimension of the other plates around the site.
        labels: Names of the entries of the value of one individual, or empty.
        scales: As in :class:`PopulationSite`, for the entries of one individual.
    """

    name: str
    dim: int
    event_dim: int
    rest: Size
    plates: tuple[tuple[str, int, int], ...]
    labels: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()

    @property
    def num_unconstrained(self) -> int:
        """Number of unconstrained coordinates of one individual."""
        return self.rest.numel()

    @property
    def coordinate_names(self) -> list[str]:
        """A name for each unconstrained coordinate of one individual."""
        return entry_names(self.name, self.num_unconstrained, self.labels)


@dataclass(frozen=True, eq=False)
class ObservedSite:
    r"""An observed site inside the plate ``individual``.

    Args:
        name: Name of the site in the model (with ``obs_mask=`` Pyro appends ``_observed``).
        series: Name of the series in the cohort.
        dim: Batch dimension of the plate at this site, negative.
        event_dim: Number of event dimensions.
        has_density: False if the distribution can only be simulated.
        kind: ``"continuous"``, ``"count"``, ``"category"`` or ``"event"``.
    """

    name: str
    series: str
    dim: int
    event_dim: int
    has_density: bool = True
    kind: OutcomeKind = "continuous"


PlateSite = IndividualSite | ObservedSite


def entry_names(name: str, size: int, labels: tuple[str, ...]) -> list[str]:
    """Names of the entries of a site: its name, with the labels or the numbers of the entries."""
    if len(labels) == size:
        return [f"{name}[{label}]" for label in labels]
    return [name] if size == 1 else [f"{name}[{j}]" for j in range(size)]


def plain_support(fn: Any) -> Constraint:
    """The support of a distribution; for a mixture, that of its components, which torch wraps."""
    support = fn.support
    return getattr(support, "base_constraint", support) if _is_mixture(fn) else support


def _is_mixture(fn: Any) -> bool:
    return isinstance(fn, torch.distributions.MixtureSameFamily)


def individual_first(x: Tensor, dim: int, event_dim: int = 0) -> Tensor:
    """Move the dimension of the plate to the front: ``(individual, ...)``."""
    return x.movedim(dim - event_dim, 0)


def individual_rows(site: PlateSite, value: Tensor) -> Tensor:
    """The value of a site with individuals first, ``(individual, ...)``."""
    return individual_first(value, site.dim, site.event_dim)


def individual_log_prob(site: PlateSite, node: Mapping[str, Any], num_individuals: int) -> Tensor:
    """Log density of every individual at a traced site, shape ``(individual,)``."""
    return sum_per_individual(site_log_prob(node), site.dim, num_individuals)


def sum_per_individual(log_prob: Tensor, dim: int, num_individuals: int) -> Tensor:
    """Sum the log density of a site over all batch dimensions except the individual's.

    The result has shape ``(individual,)``.
    """
    if log_prob.dim() < -dim:
        log_prob = log_prob.expand(num_individuals, *[1] * (-dim - 1))
    rows = log_prob.movedim(dim, 0).reshape(log_prob.shape[dim], -1).sum(1)
    return rows.expand(num_individuals)


def constrain_site(
    site: IndividualSite, support: Constraint, piece: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Map one site's unconstrained coordinates into its support.

    Args:
        site: The site.
        support: Its support in this run of the model.
        piece: Coordinates, shape ``(*, individual, num_unconstrained)``.

    Returns:
        The value in the layout of the site, and the log Jacobian in its batch shape.
    """
    transform = biject_to(support)
    lead = piece.shape[:-1]
    added = transform.domain.event_dim - transform.codomain.event_dim
    free = piece.reshape(lead + site.rest).movedim(len(lead) - 1, site.dim - added - site.event_dim)
    value = transform(free)
    if _is_identity(transform):
        return value, value.new_zeros(value.shape[: value.dim() - site.event_dim])
    log_abs_det = transform.log_abs_det_jacobian(free, value)
    num_event_dims = log_abs_det.dim() - (value.dim() - site.event_dim)
    return value, sum_last(log_abs_det.flatten(-num_event_dims)) if num_event_dims else log_abs_det


def _is_identity(transform: Transform) -> bool:
    """Whether the unconstrained values are the values, whose Jacobian is then one."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return transform == identity_transform


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


def site_log_prob(site: Mapping[str, Any]) -> Tensor:
    """Log density of a traced site, with its scale and mask applied."""
    log_prob = log_prob_of(site["fn"], site["value"], *site["args"], **site["kwargs"])
    return pyro.distributions.util.scale_and_mask(log_prob, site["scale"], site["mask"])


def site_mask(site: Mapping[str, Any]) -> Tensor | bool:
    """The mask of a site, from ``.mask(...)`` inside any number of wrappers and from
    ``poutine.mask``.
    """
    mask: Tensor | bool = True if site["mask"] is None else site["mask"]
    return append_dims(mask, site["fn"].event_dim) & values_mask(site["fn"])


def has_density(site: Mapping[str, Any]) -> bool:
    """Whether the distribution of a site has a density.

    A distribution without one declares ``has_density = False``.
    """
    fn = site["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return bool(getattr(fn, "has_density", True))
