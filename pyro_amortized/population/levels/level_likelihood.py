r"""The marginal likelihood of the units of a level above the individuals.

With the effects :math:`u_s` of unit s, and the marginal likelihood of its individuals, in which
their own parameters are integrated out by importance sampling,

.. math:: L_s(\theta) = \int p(u_s \mid \theta) \prod_{i \in s} p(y_i \mid u_s, \theta)\,
          \mathrm du_s .

The integral is computed by adaptive Gauss-Hermite quadrature: nodes around the mode of the
integrand, in units of its curvature. All units are moved together, so that each node costs one
evaluation of the likelihood of all individuals.

References:
    Pinheiro, Chao (2006), Efficient Laplacian and adaptive Gaussian quadrature algorithms for
    multilevel generalized linear mixed models.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ...cohort import Cohort
from ...errors import FitError
from ...model import ModelStructure
from ...numerics.cholesky import factored
from ...numerics.maximization import maximize, observed_information
from ...numerics.vectorized_map import AtEach
from ...sampling.individual_draws import sample_with_structure
from ..following.fitted_following import follow
from ..likelihood.exact_likelihood import ExactLikelihood
from .level_sites import Level, check_numbers, units_of


@dataclass(frozen=True)
class QuadratureNodes:
    r"""Nodes of the quadrature over the effects of a unit.

    Args:
        num_nodes: Nodes in each dimension, for one, two and three effects of a unit. The error of
            a unit of 20 binary values is below 1e-4 in log likelihood; with seven it is of the same
            order as with nine, for 49 evaluations in place of 81.
        first_nodes: Nodes of the first round, whose result the next ones improve.
        max_size: Most effects of a unit: seven nodes in three dimensions are 343 evaluations.
        probe: Change of an effect that shows which individuals depend on it, in prior units.
        dependence: Change of a log likelihood that shows a dependence: rounding errors are smaller.
        max_values: Observed values at all draws of the nodes that are computed together: 49 nodes
            of 20 individuals with three values take half the time in calls of seven that they take
            one by one, and more again in one call of all, which leaves the processor's cache.
        max_iterations: Iterations of the search for the modes of the effects.
        tolerance: Largest slope of the log density there; the quadrature needs no exact modes.
        min_curvature: Smallest curvature of the log density of the effects at a mode. A direction
            that is flat or curves the wrong way gets a finite width by it.
    """

    num_nodes: tuple[int, int, int] = (9, 7, 7)
    first_nodes: int = 5
    max_size: int = 3
    probe: float = 0.1
    dependence: float = 1e-9
    max_values: int = 250_000
    max_iterations: int = 100
    tolerance: float = 1e-3
    min_curvature: float = 1e-6


NODES = QuadratureNodes()


class LevelLikelihood:
    r"""Log likelihood of the units, on weighted draws of the individuals.

    Args:
        likelihood: That of the individuals.
        structure: The structure of the model.
        cohort: The data.
        level: The level.
        vector: The population at which the draws were made, unconstrained.
        is_first: Whether it is for the first round, which needs fewer nodes.
    """

    def __init__(
        self,
        likelihood: ExactLikelihood,
        structure: ModelStructure,
        cohort: Cohort,
        level: Level,
        vector: Tensor,
        is_first: bool = False,
    ) -> None:
        if level.size > NODES.max_size:
            raise FitError(
                f"Each unit of the level {level.plate!r} has {level.size} effects.",
                f"at most {NODES.max_size}, because the quadrature takes "
                f"{NODES.num_nodes[-1]} nodes in each dimension.",
                "draw from the posterior of the collapsed model, "
                "`MCMC(NUTS(pa.marginalize(model)), ...)`.",
            )
        self.likelihood, self.structure, self.level = likelihood, structure, level
        self.num_nodes = NODES.first_nodes if is_first else NODES.num_nodes[level.size - 1]
        self.cohort = cohort.to(dtype=torch.float64)
        # Draws err alike at all effects. Where they were made, the likelihood of the individuals is
        # known better, by control variates; the difference there corrects it everywhere.
        estimate = likelihood.individuals.marginal_estimate
        with torch.no_grad():
            self.correction = estimate.log_mean - likelihood(structure.constrain_population(vector))
        self.log_errors = estimate.mc_error
        self.units = units_of(self._depends(vector), level, cohort.ids)
        check_numbers(cohort, self.units, level)
        per_node = likelihood.individuals.num_draws * self.cohort.num_values
        size = NODES.max_values // max(per_node, 1)
        self.joint_at_each = AtEach(self.joint, size, keeps_gradients=True)
        self.center, self.factor = self._around(vector)

    def recentered(self, vector: Tensor) -> "LevelLikelihood":
        """The same draws with nodes around the modes of the effects at other parameters."""
        other = copy.copy(self)
        other.center, other.factor = self._around(vector)
        return other

    def individuals(self, vector: Tensor) -> Tensor:
        """Log likelihood of each individual given the effects, shape ``(individual,)``."""
        return self.likelihood(self.structure.constrain_population(vector)) + self.correction

    def _depends(self, vector: Tensor) -> Tensor:
        """Whether each individual depends on the effects of each unit."""
        with torch.no_grad():
            base = self.individuals(vector)
            columns = []
            for places in self.level.places:
                moved = vector.clone()
                moved[places] += NODES.probe
                columns.append((self.individuals(moved) - base).abs() > NODES.dependence)
        return torch.stack(columns, 1)

    def by_unit(self, terms: Tensor) -> Tensor:
        """Sums over the individuals of each unit, shape ``(unit,)``."""
        inside = self.units >= 0
        zero = terms.new_zeros(self.level.num_units)
        return zero.index_add(0, self.units[inside], terms[inside])

    def joint(self, vector: Tensor) -> Tensor:
        """Log density of effects and data of each unit, shape ``(unit,)``."""
        population = self.structure.constrain_population(vector)
        prior = self.level.log_prior(self.structure, self.cohort, population)
        return self.by_unit(self.likelihood(population) + self.correction) + prior

    def _around(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Modes of the effects, shape ``(unit, effect)``, and the factors of the inverse curvature
        there, shape ``(unit, effect, effect)``.
        """
        places = self.level.places.flatten()

        def objective(effects: Tensor) -> Tensor:
            return self.joint(vector.detach().index_put((places,), effects)).sum()

        best = maximize(
            objective,
            vector[places],
            max_iterations=NODES.max_iterations,
            tolerance=NODES.tolerance,
        )
        information = observed_information(objective, best.vector)
        num, size = self.level.num_units, self.level.size
        blocks = information.reshape(num, size, num, size)[range(num), :, range(num), :]
        values, vectors = torch.linalg.eigh(blocks)
        positive = values.clamp(min=NODES.min_curvature)
        covariance = (vectors / positive.unsqueeze(-2)) @ vectors.mT
        return best.vector.reshape(num, size), torch.stack([factored(c) for c in covariance])

    def log_nodes(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Log terms of the quadrature, shape ``(node, unit)``, and the effects at the nodes, shape
        ``(node, unit, effect)``.
        """
        x, w = np.polynomial.hermite_e.hermegauss(self.num_nodes)
        grid = torch.cartesian_prod(*[torch.as_tensor(x)] * self.level.size)
        grid = grid.reshape(-1, self.level.size)
        log_w = torch.cartesian_prod(*[torch.as_tensor(np.log(w))] * self.level.size)
        log_w = log_w.reshape(-1, self.level.size).sum(-1)
        half = 0.5 * grid.square().sum(-1)
        log_det = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        effects = self.center + torch.einsum("sij,kj->ksi", self.factor, grid)
        places = self.level.places.flatten()
        moved = [vector.index_put((places,), at.flatten()) for at in effects]
        terms = self.joint_at_each(torch.stack(moved))
        return terms + (log_w + half).unsqueeze(1) + log_det, effects

    def __call__(self, vector: Tensor) -> Tensor:
        """Log likelihood of all data, effects of the units integrated out."""
        terms, _ = self.log_nodes(vector)
        rest = self.individuals(vector)[self.units < 0].sum() if bool((self.units < 0).any()) else 0
        return torch.logsumexp(terms, 0).sum() + rest

    def effects(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior means and standard deviations of the effects, shape ``(unit, effect)`` each."""
        with torch.no_grad():
            terms, at = self.log_nodes(vector)
        weights = torch.softmax(terms, 0).unsqueeze(-1)
        mean = (weights * at).sum(0)
        return mean, (weights * (at - mean).square()).sum(0).sqrt()

    @property
    def mc_error(self) -> float:
        """Monte Carlo standard error of the log likelihood, from that of the individuals where
        their draws were made.
        """
        return math.sqrt(float(self.log_errors.square().sum()))


def drawn_level_likelihood(
    structure: ModelStructure,
    cohort: Cohort,
    level: Level,
    vector: Tensor,
    num_draws: int,
    generator: Generator,
    is_first: bool = False,
) -> LevelLikelihood:
    r"""The likelihood of the units on new draws of the individuals at a population.

    Args:
        structure: The structure of the model.
        cohort: The data.
        level: The level.
        vector: The population with the effects, unconstrained, shape ``(population,)``.
        num_draws: Draws of each individual.
        generator: Source of randomness.
        is_first: Whether it is for the first round, which needs fewer nodes.
    """
    population = structure.constrain_population(vector)
    individuals = sample_with_structure(
        structure, None, cohort, population, num_draws=num_draws, seed=generator
    )
    following = follow(individuals, structure.population_scale(individuals.cohort, generator))
    likelihood = ExactLikelihood(individuals, following)
    return LevelLikelihood(likelihood, structure, cohort, level, vector, is_first)
