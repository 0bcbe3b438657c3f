r"""The exact likelihood near the estimates, without running the program again and again.

Given the draws, the densities of the observations depend on the shared parameters c alone. In a box
about the estimates they are interpolated by polynomials through Chebyshev points, for every draw on
its own; the densities of the individual parameters are always exact. Thousands of populations then
cost some ten to a hundred runs of the program.
"""

import itertools
import math

import torch
from torch import Tensor

from ..model import Population
from ..sampling.importance_weights import finite_or_zero_weight, log_moments
from ..sampling.individuals import IndividualPosteriors
from .exact_likelihood import ExactLikelihood
from .fixed_draws import with_stand_ins

NUM_NODES = {1: 11, 2: 9, 3: 6}  # in every direction, by the number of shared parameters


class InterpolatedLikelihood:
    r"""Log p(y_i | Psi) on fixed draws, interpolated in the shared parameters; exact outside the
    box.

    Args:
        exact: The likelihood to interpolate.
        center: Unconstrained shared parameters in the middle of the box, shape ``(shared,)``.
        radius: Half of its width, same shape.
    """

    def __init__(self, exact: ExactLikelihood, center: Tensor, radius: Tensor) -> None:
        self.exact, self.center, self.radius = exact, center, radius
        individuals: IndividualPosteriors = exact.individuals
        self.individuals = individuals
        self.structure = individuals.structure
        dead = individuals.log_weights == -math.inf
        cohort = individuals.cohort.to(dtype=torch.float64)
        self.draws = with_stand_ins(individuals.unconstrained, individuals.log_weights, dead)
        self.many = cohort.repeat(len(self.draws))
        self.offset = individuals.log_proposal.masked_fill(dead, math.inf)
        num = NUM_NODES[len(center)]
        self.nodes = torch.cos(math.pi * torch.arange(num, dtype=torch.float64) / (num - 1))
        points = [torch.stack(x) for x in itertools.product(self.nodes, repeat=len(center))]
        populations = [
            dict(individuals.population)
            | self.structure.constrain_population(center + x * radius, self.structure.shared)
            for x in points
        ]
        with torch.no_grad():
            found = self.structure.log_observations(cohort, self.draws, populations)
        self.values = torch.stack(found)  # (point, draw, individual)

    @staticmethod
    def fits(individuals: IndividualPosteriors) -> bool:
        """Whether there are shared parameters, few enough for a grid."""
        return individuals.structure.num_shared in NUM_NODES

    def covers(self, vectors: Tensor) -> Tensor:
        """Which populations ``(draw, population)``, unconstrained, lie in the box."""
        shared = vectors[:, self.structure.coordinates(self.structure.shared)]
        return ((shared - self.center).abs() <= self.radius).all(-1)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        vector = self.structure.unconstrain_population(population)
        if bool(self.covers(vector.unsqueeze(0))[0]):
            return self.log_weights_within(population)
        return self.exact.log_weights(population)

    def log_weights_within(self, population: Population) -> Tensor:
        """The same of a population that is known to lie in the box."""
        shared = self.structure.unconstrain_population(population, self.structure.shared)
        place = (shared - self.center) / self.radius
        weights = torch.ones(1, dtype=torch.float64)
        for x in place:
            weights = (weights.unsqueeze(-1) * self._basis(x)).flatten()
        observation = torch.tensordot(weights, self.values, 1)
        individual = self.structure.log_individual_of(self.many, self.draws, population)
        return finite_or_zero_weight(observation + individual - self.offset)

    def _basis(self, x: Tensor) -> Tensor:
        """Values of the Lagrange polynomials of the nodes, by the barycentric formula."""
        apart = x - self.nodes
        here = apart == 0
        weights = torch.ones_like(self.nodes)
        weights[1::2] = -1.0
        weights[[0, -1]] *= 0.5
        terms = weights / torch.where(here, 1.0, apart)
        return torch.where(here.any(), here.double(), terms / terms.sum())

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``."""
        return log_moments(self.log_weights(population))[0]
