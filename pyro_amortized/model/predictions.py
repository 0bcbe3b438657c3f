r"""Predictions and simulated observations of many draws of the parameters.

A *prediction* is the value that an observation would have without residual error: the median of
its distribution where that is a transformed normal distribution (log-normal error), else the mean.
Limits of quantification do not change it. An *observation* is drawn from the distribution, so it
has residual error and is censored where the model says so.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import ModelError
from ..runtime.isolation import seeded
from ..runtime.random_numbers import fork_seed, make_generator
from ..runtime.solver_context import failures_reported_by_caller
from .ordered_simulation import values_in_order
from .outcome_kinds import innermost, is_wrapper, site_mean
from .population_parameters import Population
from .program_run import Assign, run_program
from .program_simulation import lay_out
from .sites import ObservedSite, individual_rows
from .structure import CALLS, ModelStructure

# Name of a further series of a cohort, whose times are those at which events are predicted: the
# times of a series of events are the ends of the follow-up.
GRID = "times of prediction"


@dataclass(frozen=True, eq=False)
class Predictions:
    r"""Predictions and observations of one quantity.

    Args:
        prediction: Without residual error, shape ``(draw, individual, time)``.
        observation: With residual error, same shape; None where the quantity is not observed or
            only predictions were wanted.
    """

    prediction: Tensor
    observation: Tensor | None


def predict(
    structure: ModelStructure,
    cohort: Cohort,
    unconstrained: Tensor,
    population: Population | Tensor,
    *,
    quantity: str | None = None,
    generator: Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> Predictions:
    r"""Predictions at the times of a cohort, and observations if there is a generator.

    Args:
        structure: The model.
        cohort: Times, doses and covariates of N individuals, or of N individuals in each of K
            draws, row ``k * N + i`` for individual i of draw k; the values are ignored.
        unconstrained: Individual parameters, shape ``(draw, individual, latent)``.
        population: Values of the population sites, or one population for each draw in unconstrained
            coordinates, shape ``(draw, population)``.
        quantity: Name of a series, or of a ``pyro.deterministic`` site of shape ``(individual,
            time)``. For a series of events the prediction is the probability of no event until each
            time. Default: the first series that is none of events, or the first one.
        generator: Source of the residual errors. Default: predictions only.
        dtype: Floating dtype of the result.

    Raises:
        ModelError: The model has no such quantity, or it has several channels.
    """
    prediction: Tensor | None = None
    observation: Tensor | None = None
    num_draws = len(unconstrained)
    parts = predicted_parts(
        structure, cohort, unconstrained, population, quantity=quantity, generator=generator
    )
    for rows, part in parts:
        if prediction is None:
            shape = (num_draws, *part.prediction.shape[1:])
            prediction = torch.empty(shape, dtype=dtype)
            observation = None if part.observation is None else torch.empty(shape, dtype=dtype)
        prediction[rows] = part.prediction.to(dtype)
        if observation is not None and part.observation is not None:
            observation[rows] = part.observation.to(dtype)
    assert prediction is not None
    return Predictions(prediction, observation)


def predicted_parts(
    structure: ModelStructure,
    cohort: Cohort,
    unconstrained: Tensor,
    population: Population | Tensor,
    *,
    quantity: str | None = None,
    generator: Generator | None = None,
) -> Iterator[tuple[slice, Predictions]]:
    """The predictions of :func:`predict` for some draws at a time, with the place of these draws,
    for results that need not hold all values. Arguments as there.
    """
    cohort = cohort.to(dtype=torch.float64)
    if quantity is None:
        columns = {name: cohort[name].times.shape[1] for name in structure.series}
        short = [name for name, size in columns.items() if size < max(columns.values())]
        quantity = default_quantity(structure, short)
    num_draws, num = unconstrained.shape[:2]
    own = len(cohort) == num_draws * num and num_draws > 1
    num_values = sum(cohort[name].values.numel() for name in structure.series)
    size = max(1, CALLS.max_values // max(1, num_values // num_draws if own else num_values))
    each: Tensor | None = None  # populations that are computed one at a time
    if isinstance(population, Tensor):
        parts = (structure, cohort[:num], unconstrained[:1], population, quantity)
        each = population if _needs_each(*parts) else None
    seed = 0 if generator is None else fork_seed(generator)
    noise = make_generator(seed)
    copies: dict[int, Cohort] = {}
    for rows in _row_parts(each, num_draws, size):
        draws = unconstrained[rows].double()
        start = rows.start
        values = _values_of(structure, population, rows, num)
        if own:
            repeated = cohort[torch.arange(start * num, (start + len(draws)) * num)]
        else:
            if len(draws) not in copies:
                copies[len(draws)] = cohort.repeat(len(draws))
            repeated = copies[len(draws)]
        with seeded(noise):
            part = _predicted(structure, repeated, draws, values, quantity, generator is not None)
        yield rows, part


def default_quantity(structure: ModelStructure, short: Collection[str] = ()) -> str:
    """The first series that is none of events, or the first one.

    ``short`` are series of one value per individual, covariates that some individuals lack.
    """
    sites = [site for site in structure.observed.values() if site.kind != "event"]
    others = [site.series for site in sites if site.series not in short]
    return others[0] if others else structure.series[0]


def _needs_each(
    structure: ModelStructure,
    cohort: Cohort,
    draw: Tensor,
    vectors: Tensor,
    quantity: str,
) -> bool:
    """Whether draws with populations of their own are computed one population at a time: the model
    takes no shared parameters of each row, or a quantity that is no series depends on population
    parameters on which the observations do not depend.
    """
    if structure.layout is None and structure.shared:
        return True
    if quantity in structure.series or len(vectors) < 2:
        return False
    first, last = (structure.constrain_population(vectors[i]) for i in (0, -1))
    mixed = last | {name: first[name] for name in structure.shared}
    ours, theirs = (
        _predicted(structure, cohort, draw.double(), p, quantity, False).prediction
        for p in (first, mixed)
    )
    return not torch.equal(ours.nan_to_num(), theirs.nan_to_num())


def _row_parts(population: Tensor | None, num_draws: int, size: int) -> Iterator[slice]:
    """Draws that are computed together: at most ``size``, and of one of the populations if there
    are any.
    """
    counts = [num_draws]
    if population is not None:
        counts = torch.unique_consecutive(population, dim=0, return_counts=True)[1].tolist()
    begin = 0
    for count in counts:
        for start in range(begin, begin + count, size):
            yield slice(start, min(start + size, begin + count))
        begin += count


def _values_of(
    structure: ModelStructure, population: Population | Tensor, part: slice, num: int
) -> Population:
    """Values of the population sites for some draws, the shared ones laid out if they differ."""
    if not isinstance(population, Tensor):
        return population
    vectors = population[part]
    first = structure.constrain_population(vectors[0])
    if not structure.shared or structure.layout is None:
        return first
    different, counts = torch.unique_consecutive(vectors, dim=0, return_counts=True)
    populations = [structure.constrain_population(vector) for vector in different]
    shared = [structure.unconstrain_population(p, structure.shared) for p in populations]
    rows = torch.stack(shared).repeat_interleave(num * counts, 0)
    return first | lay_out(structure, rows, structure.layout)


def _predicted(
    structure: ModelStructure,
    repeated: Cohort,
    draws: Tensor,
    population: Population,
    quantity: str,
    with_noise: bool,
) -> Predictions:
    """One call of the model for draws ``(draw, individual, latent)``."""
    rows = draws.flatten(0, 1)
    simulate = frozenset(structure.observed) if with_noise else frozenset()
    with torch.no_grad(), failures_reported_by_caller():
        drawn = {}
        if with_noise and structure.readers:
            drawn = values_in_order(structure, repeated, rows, population)
        assign = Assign(
            population, structure.individual, rows, simulate=simulate, observations=drawn
        )
        # What follows the site is not needed, and may be expensive (times of events).
        own = frozenset(n for n, site in structure.observed.items() if site.series == quantity)
        trace = run_program(structure.model, repeated, assign, own or None)
    shape = (*draws.shape[:2], -1)
    for name, site in structure.observed.items():
        if site.series == quantity:
            if site.kind == "event":
                times = repeated[GRID if GRID in repeated else quantity].times
                survival = innermost(trace.nodes[name]["fn"]).survival(times)
                return Predictions(survival.reshape(shape), None)
            location, value = _of_observation(trace.nodes[name], site)
            return Predictions(
                location.expand(len(rows), -1).reshape(shape),
                value.reshape(shape).double() if with_noise else None,
            )
    named = trace.nodes[quantity]["value"] if quantity in trace.nodes else None
    value = _of_deterministic(structure, quantity, named, len(rows))
    return Predictions(value.reshape(shape), None)


def _of_observation(node: Mapping[str, Any], site: ObservedSite) -> tuple[Tensor, Tensor]:
    """Prediction and value of an observation site, shape ``(row, time)`` each."""
    location = individual_rows(site, _location(node["fn"]))
    if location.dim() != 2:
        raise ModelError(
            f"The series {site.series!r} has {location.shape[-1]} channels.",
            "a quantity with one value per time.",
            "name a `pyro.deterministic` site of shape (individual, time) in `quantity=`.",
        )
    return location, individual_rows(site, node["value"])


def _of_deterministic(structure: ModelStructure, quantity: str, named: Any, num: int) -> Tensor:
    """The value of a deterministic site for so many rows; None stands for no such site."""
    if not isinstance(named, Tensor) or named.dim() != 2 or len(named) != num:
        shape_found = tuple(getattr(named, "shape", ()))
        found = "no site" if named is None else f"a site of shape {shape_found}"
        raise ModelError(
            f"The model has {found} of the name {quantity!r}.",
            f"one of its series {structure.series}, or a `pyro.deterministic` site of shape "
            "(individual, time).",
            "correct `quantity=`.",
        )
    return named.double()


def _location(fn: Any) -> Tensor:
    """The value without residual error, in the batch and event shape of the distribution."""
    if is_wrapper(fn):  # masked, independent
        return _location(fn.base_dist)
    if hasattr(fn, "base") and not hasattr(fn, "base_dist"):  # censored, truncated, rounded
        return _location(fn.base)
    if hasattr(fn, "transforms"):
        value = _location(fn.base_dist)
        for transform in fn.transforms:
            value = transform(value)
        return value
    if isinstance(fn, torch.distributions.Categorical):
        mean = site_mean(fn)
        assert mean is not None
        return mean
    if isinstance(fn, torch.distributions.StudentT):
        return fn.loc.expand(fn.batch_shape)
    return fn.mean
