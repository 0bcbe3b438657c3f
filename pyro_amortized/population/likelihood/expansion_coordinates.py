r"""The coordinates in which the observations are expanded, and the observations at points of them.

The coordinates are moves of the individual parameters of a draw along the axes of its posterior, in
standard deviations, and of the shared parameters, in units of their scale; or moves of the shared
parameters alone, with those of the individual ones that follow them
(:mod:`pyro_amortized.population.following.following_draws`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...cohort import Cohort
from ...model import ModelStructure, Population
from ..following.density_gradients import values_and_gradients
from ..following.following_draws import FOLLOWING, Following
from ..following.observation_differences import ObservationDifferences


@dataclass(frozen=True, eq=False)
class Coordinates:
    r"""The coordinates of the expansion of some individuals.

    Args:
        individual: Move of the individual parameters with a unit of each coordinate, shape
            ``(individual, latent, coordinate)``.
        shared: Move of the shared parameters, shape ``(shared, coordinate)``.
        steps: Steps of the differences, shape ``(coordinate,)``.
        shared_units: The shared parameters in units of the coordinates, as a linear function of the
            population, shape ``(shared, population)``.
    """

    individual: Tensor
    shared: Tensor
    steps: Tensor
    shared_units: Tensor

    @staticmethod
    def parameters(following: Following, is_shared: Tensor, scale: Tensor) -> "Coordinates":
        """The axes of the individual parameters, and the shared ones."""
        return Coordinates.of_parameters(following.axes, is_shared, scale)

    @staticmethod
    def of_parameters(axes: Tensor, is_shared: Tensor, scale: Tensor) -> "Coordinates":
        """The same for axes of shape ``(individual, latent, latent)``."""
        num, num_latent, _ = axes.shape
        num_shared = int(is_shared.sum())
        zero = axes.new_zeros
        individual = torch.cat([axes, zero(num, num_latent, num_shared)], -1)
        shared = torch.cat([zero(num_shared, num_latent), scale[is_shared].diag()], -1)
        unit = torch.eye(len(scale), dtype=scale.dtype)[is_shared] / scale[is_shared, None]
        steps = torch.cat(
            [
                torch.full((num_latent,), FOLLOWING.individual_step, dtype=scale.dtype),
                torch.full((num_shared,), FOLLOWING.relative_step, dtype=scale.dtype),
            ]
        )
        return Coordinates(individual, shared, steps, unit)

    @staticmethod
    def shared_parameters(
        following: Following, is_shared: Tensor, scale: Tensor, largest: float
    ) -> "Coordinates":
        """The shared parameters, which the draws follow; the steps are at most the largest one."""
        individual = following.directions[:, :, is_shared] * scale[is_shared]
        eye = torch.eye(len(scale), dtype=scale.dtype)
        shared = (eye * scale)[is_shared][:, is_shared]
        unit = eye[is_shared] / scale[is_shared, None]
        # No individual moves farther than its step.
        farthest = (individual.abs() / following.spread.unsqueeze(-1)).flatten(0, 1).amax(0)
        steps = FOLLOWING.individual_step / farthest.clamp(min=1e-12)
        return Coordinates(individual, shared, steps.clamp(max=largest), unit)


@dataclass(frozen=True, eq=False)
class MovedObservations:
    """Log densities of the observations at points of the coordinates, for
    :func:`~pyro_amortized.numerics.finite_differences.expansion`.

    Points with the same individual parameters are evaluated together: their dynamics are often
    the same, and are then solved once. Of few draws, those at points with the same shared
    parameters are evaluated in one run of the program, whose overhead is then the larger part.
    What is known already is not evaluated.
    """

    structure: ModelStructure
    cohort: Cohort
    draws: Tensor
    population: Population
    coordinates: Coordinates
    known: ObservationDifferences | None
    are_few: bool = False

    def __call__(self, points: Sequence[Tensor]) -> list[Tensor]:
        """Log densities ``(draw, individual)`` at each of the points."""
        known = [None if self.known is None else self.known.at(x) for x in points]
        values: list[Tensor] = [torch.empty(0)] * len(points)
        for is_known in (True, False):
            places = [j for j, x in enumerate(known) if (x is not None) == is_known]
            num_known = self.known.num_draws if is_known and self.known is not None else 0
            new = self._evaluated([points[j] for j in places], self.draws[num_known:])
            for j, value in zip(places, new, strict=True):
                before = known[j]
                values[j] = value if before is None else torch.cat([before, value])
        return values

    def _evaluated(self, points: Sequence[Tensor], draws: Tensor) -> list[Tensor]:
        """Log densities of some draws at points."""
        if len(draws) == 0:
            return [draws[..., 0] for _ in points]
        moved = [draws + self.coordinates.individual @ point for point in points]
        if self.are_few:
            return self._in_few_runs(points, moved)
        values: list[Tensor] = [torch.empty(0)] * len(points)
        remaining = list(range(len(points)))
        while remaining:
            first = remaining[0]
            same = [j for j in remaining if torch.equal(moved[j], moved[first])]
            populations = [self._population(points[j]) for j in same]
            results = self.structure.log_observations(self.cohort, moved[first], populations)
            for j, result in zip(same, results, strict=True):
                values[j] = result
            remaining = [j for j in remaining if j not in same]
        return values

    def _in_few_runs(self, points: Sequence[Tensor], moved: Sequence[Tensor]) -> list[Tensor]:
        """Log densities of moved draws at points, one run for each of the populations."""
        shared = [tuple((self.coordinates.shared @ point).tolist()) for point in points]
        values: list[Tensor] = [torch.empty(0)] * len(points)
        for move in dict.fromkeys(shared):
            places = [j for j, x in enumerate(shared) if x == move]
            draws = torch.cat([moved[j] for j in places])
            population = self._population(points[places[0]])
            (result,) = self.structure.log_observations(self.cohort, draws, [population])
            for j, value in zip(places, result.chunk(len(places)), strict=True):
                values[j] = value
        return values

    def take(self, rows: Tensor) -> "MovedObservations":
        """Those of some individuals, of which nothing is known."""
        coordinates = replace(self.coordinates, individual=self.coordinates.individual[rows])
        parts = (self.structure, self.cohort[rows], self.draws[:, rows], self.population)
        return MovedObservations(*parts, coordinates, None, self.are_few)

    def with_gradients(self, points: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Log densities ``(draw, individual)`` at each of the points, and their gradients in the
        coordinates of the individual parameters, by automatic differentiation.
        """
        results = []
        for point in points:
            moved = self.draws + self.coordinates.individual @ point
            parts = (self.structure, self.cohort, moved, self._population(point))
            value, gradient, _ = values_and_gradients(*parts)
            axes = self.coordinates.individual[..., : moved.shape[-1]]
            results.append((value, torch.einsum("kni,nij->knj", gradient, axes)))
        return results

    def _population(self, point: Tensor) -> Population:
        structure = self.structure
        center = structure.unconstrain_population(self.population, structure.shared)
        moved = center + self.coordinates.shared @ point
        return dict(self.population) | structure.constrain_population(moved, structure.shared)
