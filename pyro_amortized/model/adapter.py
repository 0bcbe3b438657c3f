r"""Adapts Pyro models that were written for tensors, with plates and names of their own.

The adapted model is called with a :class:`~pyro_amortized.Cohort`. The plate of the individuals is
renamed ``individual``, observation sites get the names of series, and values that were not recorded
are masked. Observations of all individuals in one dimension (as in ``alpha[county]``) are laid out
as ``(individual, time)``. The rest of the model runs unchanged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Independent, TorchDistribution
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import constraints

from ..cohort import Cohort
from ..errors import ModelError
from ..runtime.arguments import check_is, check_program
from . import PLATE, Model

MAX_NAMES = 12  # names of sites in a message


@dataclass(frozen=True)
class _Adapted:
    """A model of tensors as a function of a cohort; it can be pickled if the model can."""

    model: Callable[..., Any]
    arguments: Callable[[Cohort], tuple[Any, ...] | Mapping[str, Any]]
    plate: str
    observations: Mapping[str, str]

    def __call__(self, cohort: Cohort) -> Any:
        arguments = self.arguments(cohort)
        with _Renaming(cohort, self.plate, self.observations) as renaming:
            if isinstance(arguments, Mapping):
                result = self.model(**arguments)
            else:
                result = self.model(*arguments)
        missing = {self.plate, *self.observations} - renaming.seen
        if missing:
            raise self._lacks(sorted(missing), renaming)
        return result

    def _lacks(self, missing: list[str], renaming: "_Renaming") -> ModelError:
        """The error about a plate or sites that the model does not have."""
        if renaming.is_loop:
            return ModelError(
                f"The plate {self.plate!r} is a loop, with sites of their own for every member.",
                "a vectorized plate, and one site for all of its members.",
                f"write `with pyro.plate({self.plate!r}, n):` and compute all members at once.",
            )
        names = sorted(renaming.seen)
        shown = str(names[:MAX_NAMES]) + (" and others" if len(names) > MAX_NAMES else "")
        fix = "correct `plate=` or `observations=`."
        if self.plate in missing and not renaming.plates:
            fix = (
                f"write `with pyro.plate({self.plate!r}, n):` around the parameters and "
                "observations of the individuals, in place of `.expand([n])` and `.to_event()`."
            )
        return ModelError(
            f"The model has no plate or site {missing}; it has {shown}.",
            "the plate of the individuals and the observation sites, as the model names them.",
            fix,
        )


def adapt(
    model: Callable[..., Any],
    arguments: Callable[[Cohort], tuple[Any, ...] | Mapping[str, Any]],
    *,
    plate: str,
    observations: Mapping[str, str],
) -> Model:
    r"""A Pyro model of tensors as a model of a cohort.

    Args:
        model: The Pyro model.
        arguments: Gives the arguments of the model for a cohort: a tuple, or a dictionary of
            keyword arguments. Values are passed with their padding: ``cohort["y"].values``, or
            ``.flatten()`` where the model has all observations in one dimension.
            :func:`end_to_end` then gives the index of each value's individual.
        plate: Name of the plate whose members are the individuals. It gets the size of the cohort,
            also where the model writes a number of its own.
        observations: The series that each observation site observes, ``{"obs": "y"}``.

    Returns:
        A model that can be trained on, fitted, and run under ``MCMC`` and ``SVI``.

    Raises:
        ModelError: When the adapted model is called: a plate or site of that name is absent, or an
            observation site has neither the shape ``(individual, time)`` nor ``(individual *
            time,)``.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_amortized import Series
        >>> def schools(error, y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        ...     with pyro.plate("schools", len(y)):
        ...         effect = pyro.sample("effect", dist.Normal(mean, 1.0))
        ...         pyro.sample("obs", dist.Normal(effect, error), obs=y)
        >>> cohort = Cohort(
        ...     {"y": Series(torch.zeros(2, 1), torch.tensor([[28.0], [8.0]]))},
        ...     covariates={"error": torch.tensor([15.0, 10.0])})
        >>> model = adapt(
        ...     schools, lambda c: (c.covariates["error"], c["y"].values[:, 0]),
        ...     plate="schools", observations={"obs": "y"})
        >>> trace = pyro.poutine.trace(model).get_trace(cohort)
        >>> trace.nodes["y"]["fn"].batch_shape, trace.nodes["effect"]["cond_indep_stack"][0].name
        (torch.Size([2]), 'individual')
    """
    check_program(model, ModelError)
    check_program(arguments, ModelError)
    check_is("observations", observations, Mapping, "pass {site: series}.", ModelError)
    return _Adapted(model, arguments, plate, dict(observations))


def end_to_end(cohort: Cohort, series: str) -> Tensor:
    r"""Index of the individual of every value of a series, padding included, shape ``(individual *
    time,)``: the order of ``cohort[series].values.flatten()``.
    """
    num, width = cohort[series].values.shape[:2]
    return torch.arange(num, device=cohort.device).repeat_interleave(width)


class _Renaming(Messenger):  # type: ignore[misc]
    """Renames the sites and plates of the model for the handlers outside."""

    def __init__(self, cohort: Cohort, plate: str, observations: Mapping[str, str]) -> None:
        super().__init__()
        self.cohort, self.plate, self.observations = cohort, plate, observations
        self.seen: set[str] = set()
        self.plates: set[str] = set()
        self.is_loop = False
        self.resized = 1.0  # size of the cohort by that of the plate as the model writes it

    def _pyro_sample(self, msg: Any) -> None:
        self.seen.add(msg["name"])
        if site_is_subsample(msg):
            self.plates.add(msg["name"])
            if msg["name"] == self.plate:
                msg["name"] = PLATE
                self._resize(msg)
            return
        frames = msg["cond_indep_stack"]
        self.is_loop |= any(f.name == self.plate and not f.vectorized for f in frames)
        if any(frame.name == self.plate for frame in frames):
            msg["scale"] = msg["scale"] * self.resized
        # With ``obs_mask=`` Pyro makes two sites, with these endings, and a third of both values.
        site, ending = msg["name"], ""
        for end in ("_observed", "_unobserved"):
            if site.removesuffix(end) in self.observations and site.endswith(end):
                site, ending = site.removesuffix(end), end
        if site in self.observations:
            series = self.observations[site]
            msg["name"] = series + ending
        if site in self.observations and ending != "_unobserved":
            self._lay_out(msg, series)
        else:
            msg["cond_indep_stack"] = tuple(self._renamed(f) for f in frames)

    def _resize(self, msg: Any) -> None:
        """Let the plate have the size of the cohort where the model writes a number of its own, as
        in ``pyro.plate("groups", 20)``: the library runs models with some of the individuals. Pyro
        takes this for a subsample and scales the densities, which ``resized`` undoes.
        """
        size, num = msg["fn"].size, len(self.cohort)
        if msg["value"] is None and msg["fn"].subsample_size is None and size != num:
            msg["value"] = torch.arange(num)
            self.resized = num / size

    def _renamed(self, frame: CondIndepStackFrame) -> CondIndepStackFrame:
        return frame._replace(name=PLATE) if frame.name == self.plate else frame

    def _lay_out(self, msg: Any, name: str) -> None:
        """One row per individual, with a mask on what was not recorded."""
        series = self.cohort[name]
        shape, observed = series.values.shape, series.observed
        fn, frames = msg["fn"], [self._renamed(f) for f in msg["cond_indep_stack"]]
        flat = fn.event_dim == 0 and fn.batch_shape[-1:] == (shape.numel(),)
        if flat and msg["mask"] is None:
            kept = [f for f in frames if f.dim != -1]
            frame = CondIndepStackFrame(PLATE, -1, len(self.cohort), 0)
            msg["cond_indep_stack"] = (frame, *kept)
            msg["fn"] = Independent(EndToEnd(fn, shape).mask(observed), len(shape) - 1)
            if msg["value"] is not None:
                msg["value"] = msg["value"].reshape(*msg["value"].shape[:-1], *shape)
            return
        msg["cond_indep_stack"] = tuple(frames)
        if not bool(observed.all()):
            msg["fn"] = _masked(fn, observed, name)

    def _pyro_post_sample(self, msg: Any) -> None:
        fn = getattr(getattr(msg["fn"], "base_dist", None), "base_dist", None)
        if (
            isinstance(fn, EndToEnd) and msg["value"] is not None
        ):  # in the shape that the model expects
            value = msg["value"]
            msg["value"] = value.reshape(*value.shape[: value.dim() - len(fn.layout)], -1)


def _masked(fn: Any, observed: Tensor, name: str) -> Any:
    """A distribution of values ``(individual, time)`` with a mask."""
    if fn.batch_shape[-observed.dim() :] == observed.shape:
        return fn.mask(observed)
    depth = getattr(fn, "reinterpreted_batch_ndims", 0)
    if depth and fn.base_dist.batch_shape[-observed.dim() :] == observed.shape:
        return Independent(fn.base_dist.mask(observed), depth)
    raise ModelError(
        f"The observations of {name!r} have batch shape {tuple(fn.batch_shape)} and event shape "
        f"{tuple(fn.event_shape)}.",
        f"{tuple(observed.shape)} (individual, time), or ({observed.numel()},) in one dimension.",
        "pass the values with their padding, in the order of the cohort, or mask them in the "
        "model.",
    )


class EndToEnd(TorchDistribution):  # type: ignore[misc]
    r"""A distribution of values in one dimension, laid out as ``(individual, time)``.

    Args:
        base: The distribution, batch shape ``(*, individual * time)``, univariate.
        layout: ``(individual, time)``.
    """

    arg_constraints: Mapping[str, Any] = {}

    def __init__(self, base: Any, layout: torch.Size) -> None:
        self.base, self.layout = base, layout
        super().__init__(torch.Size(base.batch_shape[:-1]) + layout, validate_args=False)

    @property
    def support(self) -> Any:
        """The support of every value."""
        support = self.base.support
        return support.base_constraint if isinstance(support, constraints.independent) else support

    @property
    def has_rsample(self) -> bool:
        """Whether the distribution in one dimension has it."""
        return bool(self.base.has_rsample)

    @property
    def has_density(self) -> bool:
        """Whether the distribution in one dimension has it."""
        return bool(getattr(self.base, "has_density", True))

    @property
    def mean(self) -> Tensor:
        """Means, laid out."""
        return self._laid_out(self.base.mean)

    @property
    def variance(self) -> Tensor:
        """Variances, laid out."""
        return self._laid_out(self.base.variance)

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], *self.layout)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Values, laid out."""
        return self._laid_out(self.base.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Values, laid out, differentiable."""
        return self._laid_out(self.base.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log densities, laid out."""
        lead = value.shape[: value.dim() - len(self.layout)]
        return self._laid_out(self.base.log_prob(value.reshape(*lead, -1)))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "EndToEnd":
        """The distribution with further batch dimensions in front."""
        lead = torch.Size(batch_shape)[: -len(self.layout)]
        return EndToEnd(self.base.expand(lead + self.base.batch_shape[-1:]), self.layout)
