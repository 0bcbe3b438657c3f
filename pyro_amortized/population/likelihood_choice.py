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

from torch import Tensor

from ..numerics.maximization import value_and_gradient
from ..sampling.individuals import IndividualPosteriors
from .exact_likelihood import ExactLikelihood
from .expanded_likelihood import ExpandedLikelihood

MAX_EXACT = 1_000_000  # values of all draws, beyond which the observations are expanded
MAX_ROUGH = 200_000  # the same where only the neighbourhood of the best population is sought


Likelihood = ExactLikelihood | ExpandedLikelihood


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
