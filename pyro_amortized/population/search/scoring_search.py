r"""Rounds of scoring, where the maximum is too far away for rounds with an expanded likelihood.

With the scores :math:`S_i` of the individuals and their mean :math:`\bar S`, a round moves the
population by

.. math:: \lambda \Big( \sum_i (S_i - \bar S) (S_i - \bar S)^\top \Big)^{-1} \sum_i S_i ,

and new draws show whether the likelihood has risen as promised; if not, :math:`\lambda` is made
smaller. The step is damped where it would be long (Levenberg, Marquardt). The covariance of the
scores is the information at the maximum, and far from it, where all individuals have about the same
score, still the right unit of the distance.

The other rounds are limited to some posterior standard deviations of the individuals, because the
expansion of the observations does not hold farther away. Where precise data pin the individuals to
a narrow, curved ridge that moves with shared parameters, the maximum lies hundreds of these
standard deviations away. The scores hold at the population of the draws alone, so that the length
of the step is limited by nothing but new draws, and they need a quarter of the evaluations.

The start of a fit uses them where the points about the modes do not come near the maximum (decision
076).

References:
    Berndt, Hall, Hall, Hausman (1974), Estimation and Inference in Nonlinear Structural Models,
    Annals of Economic and Social Measurement 3; Marquardt (1963), An Algorithm for Least-Squares
    Estimation of Nonlinear Parameters, Journal of the Society for Industrial and Applied
    Mathematics 11.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...model import Population
from ...numerics.cholesky import factored
from ...numerics.maximization import Optimum
from ..likelihood.large_cohorts.individual_blocks import summary_by_blocks
from ..likelihood.large_cohorts.summarized_draws import RoundDraws, SummarizedDraws
from ..likelihood.likelihood_interface import Likelihood
from ..likelihood.quadratic_likelihood import QuadraticLikelihood
from .maximum_search import Ascent, Search

# Lengths of the step in units of the whole one, for each of the limits of
# :class:`~pyro_amortized.population.search.maximum_search.SearchSettings`. Rounds begin with the
# third.
LENGTHS = (1.0, 1.0, 1.0, 0.5, 0.2)


# Largest step in any parameter, in units of its scale. The information on the logarithm of a nearly
# vanishing standard deviation is nearly zero too, and their ratio says nothing.
MAX_STEP = 0.5
# First addition to the information, which is that of the prior, and the factor of the next one.
DAMPING = (1.0, 3.0)


def damped_step(slope: Tensor, information: Tensor) -> tuple[Tensor, float]:
    r"""The step of Levenberg and Marquardt, in units of the scale of the parameters.

    Args:
        slope: g, shape ``(population,)``.
        information: I, shape ``(population, population)``.

    Returns:
        The step :math:`x = (I + \lambda)^{-1} g` with the smallest :math:`\lambda` of a sequence
        that keeps it within its limit, and :math:`x^\top I x`.
    """
    damping, factor = DAMPING
    identity = torch.eye(len(slope)).to(slope)
    while True:
        root = factored(information + damping * identity)
        step = torch.cholesky_solve(slope.unsqueeze(1), root)[:, 0]
        if float(step.abs().max()) <= MAX_STEP:
            return step, float(step @ information @ step)
        damping *= factor


class UnlimitedLikelihood(QuadraticLikelihood):
    """The quadratic likelihood, with no distance beyond which it is not believed."""

    def distances(self, population: Population) -> tuple[Tensor, Tensor]:
        """Zero for every individual and every shared parameter."""
        nowhere = self.scale.new_zeros(1)
        return nowhere, nowhere


@dataclass(frozen=True, eq=False)
class ScoringSearch(Search):
    """A search in which every round is a step of scoring."""

    @classmethod
    def like(cls, search: Search) -> "ScoringSearch":
        """The same search with steps of scoring."""
        return cls(**vars(search))

    def likelihood(self, individuals: RoundDraws) -> Likelihood:
        """The likelihood to second order, by the scores."""
        if not isinstance(individuals, SummarizedDraws):
            individuals = summary_by_blocks(individuals, self.scale)
        return UnlimitedLikelihood(individuals, self.scale)

    def ascend(
        self,
        likelihood: Likelihood,
        vector: Tensor,
        held: Tensor,
        rough: bool = False,
        level: int = 0,
    ) -> Ascent:
        """The step, as long as the level says; arguments as those of the search."""
        free = ~held
        with torch.no_grad():
            before = float(self.objective(likelihood)(vector))
        scores = likelihood.following.scores
        spread = ((scores - scores.mean(0)) * self.scale)[:, free]
        slope = (scores.sum(0) + self._prior_slope(vector))[free] * self.scale[free]
        whole, curvature = damped_step(slope, spread.T @ spread)
        length = LENGTHS[level]
        gain = length * float(slope @ whole) - 0.5 * length**2 * curvature
        end = vector.masked_scatter(free, vector[free] + length * whole * self.scale[free])
        optimum = Optimum(end, before + gain, True, "a step of scoring")
        error = likelihood.following.noise**0.5
        return Ascent(optimum, likelihood, gain, error, held)

    def _prior_slope(self, vector: Tensor) -> Tensor:
        """Gradient of the part of the criterion that is not the likelihood."""
        if self.criterion == "maximum likelihood":
            return torch.zeros_like(vector)
        x = vector.clone().requires_grad_()
        value = self.log_prior(self.structure.constrain_population(x), x)
        (slope,) = torch.autograd.grad(value, x)
        return slope
