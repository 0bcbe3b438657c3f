r"""The exact likelihood near the estimates, interpolated in the shared parameters.

The draws follow the shared parameters c, so the densities of the observations depend only on c.
In a box around the estimates they are interpolated by polynomials through Chebyshev points
:math:`x_j = \cos(\pi j / n)`, for every draw separately. The densities of the individual parameters
are always exact. Thousands of populations then cost ten to some hundred evaluations of the
observations (decision 041). Where there are no shared parameters, as in a logistic regression with
random effects, the grid is one point, and nothing is interpolated: the observations are evaluated
once.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from ...cohort import Cohort
from ...model import Population
from ...sampling.importance_weights import finite_or_zero_weight, log_mean
from ...sampling.individuals import IndividualPosteriors
from ..following.fixed_draws import without_negligible
from .exact_likelihood import ExactLikelihood


@dataclass(frozen=True)
class InterpolationSettings:
    """Size of the grid."""

    # Points in every direction, by the number of shared parameters: with 11 points, or 9 x 9, the
    # likelihood agrees with the exact one to 1e-4 (decision 041).
    num_nodes: Mapping[int, int] = field(
        default_factory=lambda: MappingProxyType({0: 1, 1: 11, 2: 9, 3: 6})
    )


INTERPOLATION = InterpolationSettings()


class InterpolatedLikelihood:
    r"""Log p(y_i | Psi) on fixed draws, interpolated in the shared parameters; exact outside the
    box.

    Args:
        exact: The likelihood to interpolate.
        center: Unconstrained shared parameters at the centre of the box, shape ``(shared,)``.
        radius: Half of the width of the box, same shape.
    """

    def __init__(self, exact: ExactLikelihood, center: Tensor, radius: Tensor) -> None:
        self.center, self.radius = center, radius
        individuals: IndividualPosteriors = exact.individuals
        self.individuals = individuals
        self.structure = individuals.structure
        cohort = individuals.cohort.to(dtype=torch.float64)
        self.draws, impossible = without_negligible(
            individuals.unconstrained, individuals.log_weights
        )
        shared = self.structure.coordinates(self.structure.shared)
        self.following = exact.following.only(shared)
        self.exact = ExactLikelihood(individuals, self.following)
        self.repeated_cohort = cohort.repeat(len(self.draws))
        self.log_proposal = individuals.log_proposal.masked_fill(impossible, math.inf)
        num = INTERPOLATION.num_nodes[len(center)]
        self.nodes = torch.cos(math.pi * torch.arange(num, dtype=torch.float64) / max(1, num - 1))
        grid = itertools.product(self.nodes.tolist(), repeat=len(center))
        points = [torch.tensor(x, dtype=torch.float64) for x in grid]
        vector = self.following.center
        with torch.no_grad():
            values = [
                self._observations(cohort, vector.masked_scatter(shared, center + x * radius))
                for x in points
            ]
        self.values = torch.stack(values)  # (point, draw, individual)

    def _observations(self, cohort: Cohort, vector: Tensor) -> Tensor:
        """Log densities of the observations at an unconstrained population, on the draws that
        follow it, shape ``(draw, individual)``.
        """
        draws = self.following.moved(self.draws, vector)[0]
        population = self.structure.constrain_population(vector)
        return self.structure.log_observations(cohort, draws, [population])[0]

    @staticmethod
    def is_possible(individuals: IndividualPosteriors) -> bool:
        """Whether the shared parameters are few enough for a grid."""
        return individuals.structure.num_shared in INTERPOLATION.num_nodes

    def covers(self, vectors: Tensor) -> Tensor:
        """Which unconstrained populations ``(draw, population)`` lie in the box."""
        shared = vectors[:, self.structure.coordinates(self.structure.shared)]
        return ((shared - self.center).abs() <= self.radius).all(-1)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        vector = self.structure.unconstrain_population(population)
        if bool(self.covers(vector.unsqueeze(0))[0]):
            return self.log_weights_within(population)
        return self.exact.log_weights(population)

    def log_weights_within(self, population: Population) -> Tensor:
        """The same for a population that is known to lie in the box."""
        shared = self.structure.unconstrain_population(population, self.structure.shared)
        position = (shared - self.center) / self.radius
        weights = torch.ones(1, dtype=torch.float64)
        for x in position:
            weights = (weights.unsqueeze(-1) * self._basis(x)).flatten()
        observation = torch.tensordot(weights, self.values, 1)
        vector = self.structure.unconstrain_population(population)
        draws, log_det = self.following.moved(self.draws, vector)
        individual = self.structure.log_individual_of(self.repeated_cohort, draws, population)
        return finite_or_zero_weight(observation + individual + log_det - self.log_proposal)

    def _basis(self, x: Tensor) -> Tensor:
        """Values of the Lagrange polynomials of the nodes, by the barycentric formula."""
        distance = x - self.nodes
        at_node = distance == 0
        weights = torch.ones_like(self.nodes)
        weights[1::2] = -1.0
        weights[[0, -1]] *= 0.5
        terms = weights / torch.where(at_node, 1.0, distance)
        return torch.where(at_node.any(), at_node.double(), terms / terms.sum())

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``."""
        return log_mean(self.log_weights(population), self.individuals.factors)
