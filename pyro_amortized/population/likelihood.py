r"""The marginal likelihood of every individual as a function of the population, on fixed draws.

For draws :math:`u_{ik} \sim q_i`, which stay as they are while Psi moves,

.. math:: \log \hat p(y_i \mid \Psi) = \log \frac1K \sum_k
          \frac{p(y_i \mid u_{ik}, c)\; p(u_{ik} \mid \Psi)}{q_i(u_{ik})} .

The first factor is dear (it solves the dynamics, and touches every observation), and moves with the
shared parameters c alone. Where there are many individuals it is therefore expanded, for every draw
on its own, to second order about some :math:`c_0`:

.. math:: \log p(y_i \mid u_{ik}, c) \approx a_{ik} + g_{ik}^\top (c - c_0)
          + \tfrac12 (c - c_0)^\top H_{ik} (c - c_0) .

Value, gradient and curvature of the likelihood at :math:`c_0` are then those of the exact one.
Individuals are taken some at a time, so memory stays bounded; a gradient runs every part once more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..cohort import Cohort
from ..model import Population
from ..numerics.finite_differences import expansion
from ..numerics.maximization import value_and_gradient
from ..sampling.importance_weights import finite_or_zero_weight, log_moments
from ..sampling.individuals import IndividualPosteriors

MAX_EXACT = 1_000_000  # values of all draws, beyond which the observations are expanded
MAX_ROUGH = 200_000  # the same where only the neighbourhood of the best population is sought
MAX_ROWS = 400_000  # draws of the individuals that are taken together
STEP = 1e-3  # of the differences, in units of the scale of c


@dataclass(frozen=True, eq=False)
class Part:
    """Draws of some individuals: the cohort once per draw, and log proposal less what the
    observations say, expanded.
    """

    many: Cohort
    draws: Tensor
    offset: Tensor
    gradient: Tensor
    hessian: Tensor


class ExactLikelihood:
    r"""Log p(y_i | Psi) by running the whole program; for few individuals.

    Args:
        individuals: The draws.
        dead: Draws that count as impossible wherever the population goes, shape ``(draw,
            individual)``; the program is not run at them. Default: none.
    """

    def __init__(self, individuals: IndividualPosteriors, dead: Tensor | None = None) -> None:
        self.individuals, self.dead = individuals, dead
        draws = individuals.unconstrained
        if dead is not None:
            draws = with_stand_ins(draws, individuals.log_weights, dead)
        self._density = individuals.structure.fixed_draws(individuals.cohort, draws)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        found = self._density(population)
        log_target = found.observation + found.individual
        log_weights = finite_or_zero_weight(log_target - self.individuals.log_proposal)
        return log_weights if self.dead is None else log_weights.masked_fill(self.dead, -math.inf)

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        return log_moments(self.log_weights(population))

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]


class ExpandedLikelihood:
    r"""Log p(y_i | Psi) with the observations' densities expanded in the shared parameters, about
    the population of the draws.

    Draws of weight zero stay so: no program is asked for slopes at them.

    Args:
        individuals: The draws.
        scale: Size of a large step in each unconstrained population parameter.
        about: Population to expand about. Default: that of the draws.
    """

    def __init__(
        self,
        individuals: IndividualPosteriors,
        scale: Tensor,
        about: Population | None = None,
    ) -> None:
        self.individuals, self.scale, structure = individuals, scale, individuals.structure
        self.structure, self.moved = structure, about is not None
        population = individuals.population if about is None else about
        self.center = structure.unconstrain_population(population, structure.shared).detach()
        steps = STEP * scale[structure.coordinates(structure.shared)]
        size = max(1, MAX_ROWS // individuals.num_draws)
        cohort = individuals.cohort.to(dtype=torch.float64)
        with torch.no_grad():
            self.parts = [
                self._part(cohort[rows], rows, dict(population), steps)
                for rows in torch.arange(len(cohort)).split(size)
            ]

    def _part(self, cohort: Cohort, rows: Tensor, population: Population, steps: Tensor) -> Part:
        draws = self.individuals.unconstrained[:, rows]
        structure, center = self.structure, self.center
        many = cohort.repeat(len(draws))
        weights = self.individuals.log_weights[:, rows]
        log_proposal = self.individuals.log_proposal[:, rows]
        dead = weights == -math.inf
        draws = with_stand_ins(draws, weights, dead)
        if self.moved:
            (observation,) = structure.log_observations(cohort, draws, [population])
            observation = observation.masked_fill(dead, -math.inf)
        else:
            known = structure.log_individual_of(many, draws, population)
            observation = weights + log_proposal - known

        def around(some: Sequence[Tensor]) -> list[Tensor]:
            moved = [
                dict(population) | structure.constrain_population(center + x, structure.shared)
                for x in some
            ]
            return structure.log_observations(cohort, draws, moved) if some else []

        gradient, hessian = expansion(around, steps, observation)
        return Part(many, draws, observation - log_proposal, gradient, hessian)

    def log_weights(self, population: Population) -> Tensor:
        """Log weights of the draws, shape ``(draw, individual)``."""
        with torch.no_grad():
            return torch.cat([self._part_weights(part, population) for part in self.parts], 1)

    def _part_weights(self, part: Part, population: Population) -> Tensor:
        found = self.structure.log_individual_of(part.many, part.draws, population)
        found = found + part.offset
        if len(self.center):
            shared = self.structure.unconstrain_population(population, self.structure.shared)
            move = shared - self.center
            found = found + (part.gradient + 0.5 * part.hessian @ move) @ move
        return finite_or_zero_weight(found)

    def moments(self, population: Population) -> Tensor:
        """Log p(y_i | Psi) and log ESS, shape ``(2, individual)``, differentiable."""
        names, values = list(population), list(population.values())

        def value(part: Part, *values: Tensor) -> Tensor:
            return log_moments(self._part_weights(part, dict(zip(names, values, strict=True))))

        if len(self.parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([value(part, *values) for part in self.parts], 1)
        parts = [checkpoint(value, part, *values, use_reentrant=False) for part in self.parts]
        return torch.cat(parts, 1)

    def __call__(self, population: Population) -> Tensor:
        """Log p(y_i | Psi), shape ``(individual,)``, differentiable."""
        return self.moments(population)[0]


Likelihood = ExactLikelihood | ExpandedLikelihood


def with_stand_ins(draws: Tensor, log_weights: Tensor, dead: Tensor) -> Tensor:
    r"""Draws, with the individual's best in the place of some: what a program gives at a draw that
    cannot be may have no gradient, and zero times NaN is NaN.

    Args:
        draws: Shape ``(draw, individual, latent)``.
        log_weights: Shape ``(draw, individual)``.
        dead: Which to replace, shape ``(draw, individual)``.
    """
    if not bool(dead.any()):
        return draws
    best = log_weights.argmax(0)
    return torch.where(dead.unsqueeze(-1), draws[best, torch.arange(draws.shape[1])], draws)


def is_small(individuals: IndividualPosteriors, rough: bool = False) -> bool:
    """Whether the exact likelihood is cheap enough to be followed everywhere."""
    names = individuals.structure.series
    values = sum(individuals.cohort[name].values.numel() for name in names)
    return values * individuals.num_draws <= (MAX_ROUGH if rough else MAX_EXACT)


def make_likelihood(
    individuals: IndividualPosteriors, scale: Tensor, rough: bool = False
) -> Likelihood:
    """The exact likelihood where it is cheap and has a gradient, else the one expanded about where
    the draws were made, which without shared parameters is exact too.
    """
    if is_small(individuals, rough) and individuals.structure.shared:
        dead = individuals.log_weights == -math.inf
        for without in (None, dead) if bool(dead.any()) else (None,):
            exact = ExactLikelihood(individuals, without)
            if _has_gradient(exact):
                return exact
    return ExpandedLikelihood(individuals, scale)


def _has_gradient(likelihood: ExactLikelihood) -> bool:
    """Whether the gradient where the draws were made is finite."""
    individuals = likelihood.individuals
    structure = individuals.structure
    vector = structure.unconstrain_population(individuals.population)

    def total(x: Tensor) -> Tensor:
        return likelihood(structure.constrain_population(x)).sum()

    return bool(value_and_gradient(total, vector)[1].isfinite().all())
