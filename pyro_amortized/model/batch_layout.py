r"""The layout in which one call of the model takes one value of the shared parameters per
individual.

A shared parameter with one value per individual has the shape ``(individual, 1, ..., *event)``. The
number of trailing singleton dimensions depends on how the model uses the parameter: none for
``sigma[..., None]``, one for ``sigma`` alone. All layouts are tried. Each is compared with ordinary
calls of the model: by the density, or by simulations with the same random numbers if there is no
density.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..cohort import Cohort
from ..runtime.isolation import seeded
from ..runtime.random_numbers import make_generator
from .population_parameters import Population
from .program_run import Assign, run_program
from .program_simulation import lay_out, simulated_values
from .sites import individual_rows
from .structure import ModelStructure

CHECK_SIZE = 5  # individuals that are compared, each with its own value


@dataclass(frozen=True)
class LayoutTolerance:
    r"""Largest accepted difference, relative to 1 + the absolute value.

    Args:
        exact: For rounding errors: a layout with no larger difference is accepted at once.
        solver: For an ODE solver whose steps depend on the whole batch. A wrong layout differs by
            far more.
        max_parameters: Number of shared parameters whose layouts are combined (2 to the power of
            this number are tried); further ones take the layout of the first.
    """

    exact: float = 1e-8
    solver: float = 1e-3
    max_parameters: int = 6


TOLERANCE = LayoutTolerance()
NO_LAYOUT = float("inf")


def find_layout(structure: ModelStructure, cohort: Cohort, seed: int) -> dict[str, int] | None:
    """The first layout that agrees with ordinary calls up to rounding errors.

    If there is none, the layout that agrees best is returned, provided that it agrees up to the
    error of an ODE solver; otherwise None.
    """
    comparison = _Comparison.begin(structure, cohort, seed)
    num = TOLERANCE.max_parameters
    pads = itertools.product((0, 1), repeat=min(len(structure.shared), num))
    return comparison.best(
        dict(zip(structure.shared, pad, strict=False)) | {n: pad[0] for n in structure.shared[num:]}
        for pad in sorted(pads, key=lambda p: len(set(p)))
    )


def sites_without_layout(structure: ModelStructure, cohort: Cohort, seed: int) -> tuple[str, ...]:
    """The shared parameters that the model cannot take with one value per individual, each looked
    at with the others as they are; all of them if each works by itself.
    """
    comparison = _Comparison.begin(structure, cohort, seed)
    names = tuple(
        name for name in structure.shared if comparison.best({name: pad} for pad in (0, 1)) is None
    )
    return names or structure.shared


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Individuals and populations on which layouts are compared with ordinary calls."""

    structure: ModelStructure
    cohort: Cohort
    individuals: Tensor
    shared: Tensor
    population: Population
    seed: int

    @classmethod
    def begin(cls, structure: ModelStructure, cohort: Cohort, seed: int) -> "_Comparison":
        """Random individuals, because the first ones of a sorted table may have no observations."""
        generator = make_generator(seed)
        repeated = cohort.repeat(-(-CHECK_SIZE // len(cohort)))
        sample = repeated[torch.randperm(len(repeated), generator=generator)[:CHECK_SIZE]]
        draws = structure.draw_populations(sample, CHECK_SIZE, generator)
        shared = torch.stack([structure.unconstrain_population(d, structure.shared) for d in draws])
        individuals = structure.draw_individuals(sample, draws[0], 1, generator)[0]
        return cls(structure, sample, individuals, shared, draws[0], seed)

    def best(self, layouts: Iterable[Mapping[str, int]]) -> dict[str, int] | None:
        """The first layout that agrees up to rounding errors, or else the one that agrees best."""
        best, smallest = None, TOLERANCE.solver
        for layout in layouts:
            difference = self.difference(layout)
            if difference <= TOLERANCE.exact:
                return dict(layout)
            if difference < smallest:
                best, smallest = dict(layout), difference
        return best

    def difference(self, layout: Mapping[str, int]) -> float:
        """Largest difference between a layout of some or all shared parameters and ordinary calls
        of the model; infinity if the layout cannot be used.
        """
        structure = self.structure
        every = dict.fromkeys(structure.shared, 0) | dict(layout)
        of_all = lay_out(structure, self.shared, every)
        laid_out = dict(self.population) | {name: of_all[name] for name in layout}
        ordinary = []
        for row in self.shared:
            values = structure.constrain_population(row, structure.shared)
            ordinary.append(dict(self.population) | {name: values[name] for name in layout})
        pairs = _densities if structure.has_density else _simulations
        largest = 0.0
        arguments = (structure, self.cohort, self.individuals, laid_out, ordinary, self.seed)
        try:
            with torch.no_grad():  # so that every call uses the same solver
                for x, expected in pairs(*arguments):
                    largest = max(largest, _largest_difference(x, expected))
                    if largest > TOLERANCE.solver:
                        return NO_LAYOUT
        except (RuntimeError, ValueError, IndexError, TypeError):
            return NO_LAYOUT
        return largest


def _largest_difference(x: Tensor, expected: Tensor) -> float:
    """Largest difference relative to 1 + the absolute value; infinity if one is not finite."""
    same = (x == expected) | (x.isnan() & expected.isnan())
    difference = (x - expected).abs() / (1 + expected.abs())
    return float(torch.where(same, 0.0, difference.nan_to_num(NO_LAYOUT, NO_LAYOUT)).max())


def _densities(
    structure: ModelStructure,
    cohort: Cohort,
    individuals: Tensor,
    laid_out: Population,
    ordinary: list[dict[str, Tensor]],
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Simulate in the layout, and compute each individual's log density by ordinary calls.

    Raises:
        ValueError: The simulation has another shape than the data.
    """
    assign = Assign(
        laid_out, structure.individual, individuals, simulate=frozenset(structure.observed)
    )
    with seeded(seed):
        trace = run_program(structure.model, cohort, assign)
    log_prob = structure.total(structure.observed, trace, len(cohort))
    values = {name: trace.nodes[name]["value"] for name in structure.observed}
    for name, site in structure.observed.items():
        shape = individual_rows(site, values[name]).shape
        if shape != cohort[site.series].values.shape:
            raise ValueError(f"{name}: {shape}")
    for i, one in enumerate(ordinary):
        assign = Assign(one, structure.individual, individuals, observations=values)
        trace = run_program(structure.model, cohort, assign)
        yield log_prob[i], structure.total(structure.observed, trace, len(cohort))[i]


class _Means(TorchFunctionMode):
    """Distributions whose random numbers depend on their parameters give their means instead, so
    that two runs can be compared value by value.
    """

    means: Mapping[Any, Callable[..., Tensor]] = {
        torch.poisson: lambda rate: rate,
        torch.binomial: lambda count, prob: count * prob,
        torch._standard_gamma: lambda concentration: concentration,
    }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in self.means:
            return self.means[func](*args)
        return func(*args, **(kwargs or {}))


def _simulations(
    structure: ModelStructure,
    cohort: Cohort,
    individuals: Tensor,
    laid_out: Population,
    ordinary: list[dict[str, Tensor]],
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Simulate in the layout, and each individual by ordinary calls, with the same random numbers.

    Raises:
        ValueError: The simulation has another shape than the data.
    """

    def simulate(population: Population) -> dict[str, Tensor]:
        with seeded(seed), _Means():
            return simulated_values(structure, cohort, individuals, population)[0]

    values = simulate(laid_out)
    for name in structure.series:
        if values[name].shape != cohort[name].values.shape:
            raise ValueError(f"{name}: {values[name].shape}")
    for i, one in enumerate(ordinary):
        expected = simulate(one)
        for name in structure.series:
            yield values[name][i], expected[name][i]
