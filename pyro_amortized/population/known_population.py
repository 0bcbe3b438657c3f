r"""A model with known population parameters, for instance published ones, in place of a fit.

What follows a fit (simulation, recommended doses, designs) needs a model, values of its population
parameters, and perhaps their uncertainty. A :class:`KnownPopulation` holds them; no data and no fit
are needed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cohort import Cohort, Doses, Series
from ..errors import ModelError
from ..model import Model, ModelStructure, read_structure
from ..model.program_run import Assign, run_program
from ..runtime.arguments import check_is, check_program
from ..runtime.isolation import seeded

GivenValue = Tensor | float | list[Any] | tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class KnownPopulation:
    r"""A model and values of its population parameters. Made by :func:`population`.

    Args:
        model: The model.
        estimates: Values of the population sites, by name.
        standard_errors: Their standard errors, or an empty mapping.
        cohort: Data or a design whose covariates new individuals have, or None.
        series: Names of the series that the model observes.
        covariates: Names of the covariates that it reads, or None if they are not known.
    """

    model: Model
    estimates: Mapping[str, Tensor]
    standard_errors: Mapping[str, Tensor]
    cohort: Cohort | None
    series: tuple[str, ...]
    covariates: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        name = getattr(self.model, "__name__", type(self.model).__name__)
        values = ", ".join(f"{n} {x.tolist()}" for n, x in self.estimates.items())
        return f"KnownPopulation of {name}: {values}"

    def structure(self, cohort: Cohort) -> ModelStructure:
        r"""The structure of the model for some individuals.

        Raises:
            ModelError: A value is missing, superfluous or outside its support.
        """
        structure = read_structure(self.model, cohort)
        structure.check_population(self.estimates)
        return structure

    def covariance(self, structure: ModelStructure) -> Tensor:
        """Covariance of the unconstrained estimates, shape ``(population, population)``: diagonal,
        by the delta method; NaN where no standard error is known.
        """
        pieces = []
        for name, site in structure.population.items():
            free = site.unconstrain(self.estimates[name])
            error = self.standard_errors.get(name)
            if error is None or site.shape.numel() != site.num_unconstrained:
                pieces.append(torch.full_like(free, torch.nan))
                continue
            jacobian = torch.autograd.functional.jacobian(site.constrain, free)
            slopes = jacobian.reshape(len(free), len(free)).diagonal().abs()
            pieces.append((error.expand(site.shape).reshape(-1) / slopes).square())
        return torch.diag(torch.cat(pieces)) if pieces else torch.zeros(0, 0, dtype=torch.float64)


def population(
    model: Model,
    estimates: Mapping[str, GivenValue] | None = None,
    *,
    standard_errors: Mapping[str, GivenValue] | None = None,
    cohort: Cohort | None = None,
) -> KnownPopulation:
    r"""A model with known population parameters, in place of a fit.

    Args:
        model: The model.
        estimates: Values of all population sites (and ``pyro.param``), by name: numbers, lists or
            tensors. Default: the model has none.
        standard_errors: Standard errors of some or all of them, in the same units, for simulations
            with uncertainty of the population. Default: not known.
        cohort: Data or a design: new individuals get its covariates, and its series say what the
            model observes. Default: covariates are given where they are needed.

    Returns:
        What :func:`~pyro_amortized.simulate`, :func:`~pyro_amortized.recommend` and
        :func:`~pyro_amortized.evaluate_designs` take in place of a fit.

    Raises:
        ModelError: The model cannot be called, an estimate is not a number, or a standard error has
            no estimate.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(cohort):
        ...     cl = pyro.sample("cl", dist.LogNormal(0.0, 1.0))
        ...     with pyro.plate("individual", len(cohort)):
        ...         eta = pyro.sample("eta", dist.Normal(0.0, 0.3))
        ...         y = cohort["y"]
        ...         f = torch.exp(-cl * eta.exp()).unsqueeze(-1) * torch.ones_like(y.times)
        ...         pyro.sample("y", dist.Normal(f, 0.1).to_event(1), obs=y.values)
        >>> population(model, {"cl": 4.0})
        KnownPopulation of model: cl 4.0
    """
    check_program(model, ModelError)
    if cohort is not None:
        check_is("cohort", cohort, Cohort, "pass data, or a design from `nlme.study`.", ModelError)
    values = {n: _tensor(n, x, "estimates") for n, x in (estimates or {}).items()}
    errors = {n: _tensor(n, x, "standard_errors") for n, x in (standard_errors or {}).items()}
    for name, error in errors.items():
        fits = name in values and (error.dim() == 0 or error.shape == values[name].shape)
        if not fits or bool((error < 0).any()):
            raise ModelError(
                f"The standard error of {name!r} is {error.tolist()}.",
                f"errors that are not negative, of the estimates {sorted(values)}; one number, or "
                "as many as the estimate has.",
                "correct `standard_errors=`.",
            )
    if cohort is not None:
        names = _Names(tuple(cohort.series), tuple(cohort.covariates))
    else:
        names = _names_of(model)
    return KnownPopulation(model, values, errors, cohort, *names)


def _tensor(name: str, value: Any, argument: str) -> Tensor:
    try:
        x = torch.as_tensor(value, dtype=torch.float64).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        x = torch.tensor(torch.nan)
    if not bool(x.isfinite().all()):
        raise ModelError(
            f"{argument}[{name!r}] is {value!r}.",
            "a finite number, a list of numbers or a tensor.",
            f"correct `{argument}=`.",
        )
    return x


class _AnyName(Mapping[str, Any]):
    """Has an entry of any name, and remembers which ones were read."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.names: list[str] = []

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            self.names.append(name)
        return self.make()

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class _Names(NamedTuple):
    """Names of the series and of the covariates of a model; the latter None if not known."""

    series: tuple[str, ...]
    covariates: tuple[str, ...] | None


def _names_of(model: Model) -> _Names:
    """The series and covariates that a model reads, found by a run in which any name has one.

    The run may fail after it has read the series; the covariates are then not known. The model is
    called with a complete cohort later, which gives the errors that matter.
    """
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    series, covariates = _AnyName(lambda: Series(zero, one)), _AnyName(lambda: one[0])
    parts = {
        "series": series,
        "doses": Doses(zero, one),
        "covariates": covariates,
        "ids": ("1",),
        "time_varying": _AnyName(lambda: Series(zero, one)),
        "categories": {},
    }
    probe = object.__new__(Cohort)
    for name, part in parts.items():
        object.__setattr__(probe, name, part)
    is_complete = False
    with seeded(0), suppress(Exception):
        run_program(model, probe, Assign({}))
        is_complete = True
    return _Names(tuple(series.names), tuple(covariates.names) if is_complete else None)
