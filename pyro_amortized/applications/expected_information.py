r"""The expected information of a design, from scores of simulated individuals.

For individuals that are simulated from the population under the design, with scores
:math:`s_i = \nabla_\Psi \log p(y_i \mid \Psi)`,

.. math:: I(\Psi) = \sum_i E\, s_i s_i^\top ,

estimated by the mean over the simulated individuals. The score of an individual is the posterior
mean of the score :math:`c_i` of the complete data (Fisher's identity), over weighted draws of the
individual that follow the population (:mod:`pyro_amortized.population.following.following_draws`).
The model is not linearised.

The products of the scores are noisy. Posterior means of the products of the scores of the complete
data are correlated with them, and their mean is known from many more simulations that need no
posterior draws. With the coefficients :math:`\beta` of the regression,

.. math:: Z_i = s_i s_i^\top - \beta \circ (E[c c^\top \mid y_i] - E\, c c^\top) ,

has the same mean and less variance. For :math:`\beta = 1` it is the information of the complete
data less what is missing (Louis).

References:
    Louis (1982), Finding the observed information matrix when using the EM algorithm; Nyberg et al.
    (2015), Methods and software tools for design evaluation in population
    pharmacokinetics-pharmacodynamics studies; Riviere, Ueckert, Mentré (2016), An MCMC method for
    the evaluation of the Fisher information matrix for non-linear mixed effect models.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..cohort import Cohort
from ..errors import AmortizedWarning, FitError
from ..model import ModelStructure
from ..population.following.complete_scores import complete_scores
from ..population.following.fitted_following import follow
from ..runtime.random_numbers import fork_seed
from ..sampling.importance_weights import PARETO
from ..sampling.individual_draws import sample_individuals
from .population_source import Source


@dataclass(frozen=True)
class ExpectedInformationSettings:
    r"""How scores are computed.

    Args:
        num_draws: Posterior draws of a simulated individual. That they follow the population leaves
            little Monte Carlo error.
        chunk: Simulated individuals at once, which limits memory.
        num_complete: Individuals whose complete data give the mean of the control variate, for each
            simulated individual with posterior draws: they cost a thousandth of it.
        chunk_complete: Of these, individuals at once.
        min_eigenvalue: Part of its smallest eigenvalue that the information must keep with the
            control variate.
        relative_step: Step of the differences, in units of the scale of each parameter.
    """

    num_draws: int = 300
    chunk: int = 250
    num_complete: int = 400
    chunk_complete: int = 20_000
    min_eigenvalue: float = 0.5
    relative_step: float = 1e-3


SETTINGS = ExpectedInformationSettings()


@dataclass(frozen=True, eq=False)
class SimulatedInformation:
    r"""Information of individuals that were simulated under a design.

    Args:
        structure: The model.
        vector: The population, unconstrained, shape ``(population,)``.
        scores: Scores, shape ``(simulated, population)``.
        products: Z, whose mean is the expected information of one individual, shape
            ``(simulated, population, population)``.
        num_individuals: Number of individuals of the design.
        num_unreliable: Simulated individuals whose draws are poor.
    """

    structure: ModelStructure
    vector: Tensor
    scores: Tensor
    products: Tensor
    num_individuals: int
    num_unreliable: int


def simulated_information(
    source: Source, design: Cohort, num_simulated: int, generator: Generator
) -> SimulatedInformation:
    r"""Information of individuals that are simulated under a design.

    Args:
        source: The population.
        design: The design; its values are ignored.
        num_simulated: Number of simulated individuals, rounded up to copies of the design.
        generator: Source of randomness.

    Raises:
        FitError: A simulation is not finite.
    """
    design = design.to(dtype=torch.float64)
    structure = source.structure(design)
    structure.check_density()
    vector = structure.unconstrain_population(source.estimates)
    if source.fit is not None:
        scale = source.fit.search.scale
    else:
        scale = structure.population_scale(design, generator)
    simulate = _Simulator(source, structure, vector, scale, generator)
    parts = [simulate.marginal_scores(x) for x, _ in simulate.copies(design, num_simulated)]
    scores, control = torch.cat([x.scores for x in parts]), torch.cat([x.control for x in parts])
    num_unreliable = sum(x.num_unreliable for x in parts)
    num_further = len(scores) * SETTINGS.num_complete
    further = [
        _products(simulate.complete_scores(data, draws)).mean(0) * len(data)
        for data, draws in simulate.copies(design, num_further, SETTINGS.chunk_complete)
    ]
    expected = torch.stack(further).sum(0) / num_further
    products = _with_control(_products(scores), control, expected)
    return SimulatedInformation(structure, vector, scores, products, len(design), num_unreliable)


def _products(scores: Tensor) -> Tensor:
    return scores.unsqueeze(2) * scores.unsqueeze(1)


def _with_control(products: Tensor, control: Tensor, expected: Tensor) -> Tensor:
    """The products with less variance, by regression on a control of known mean; as they are where
    the result would be nearly singular, because every element has a coefficient of its own.
    """
    centered = control - control.mean(0)
    variance = centered.square().sum(0)
    slope = (centered * (products - products.mean(0))).sum(0) / variance.clamp(min=1e-300)
    slope = torch.where(variance > 0, slope, 0.0)
    controlled = products - slope * (control - expected)
    before, after = (_smallest_eigenvalue(x.mean(0)) for x in (products, controlled))
    return controlled if after > SETTINGS.min_eigenvalue * before else products


def _smallest_eigenvalue(information: Tensor) -> float:
    """The smallest eigenvalue in units of the diagonal."""
    scale = information.diagonal().clamp(min=1e-300).sqrt()
    return float(torch.linalg.eigvalsh(information / torch.outer(scale, scale))[0])


class _Scores(NamedTuple):
    """Scores, shape ``(individual, population)``, posterior means of the products of the scores of
    the complete data, ``(individual, population, population)``, and how many individuals are poor.
    """

    scores: Tensor
    control: Tensor
    num_unreliable: int


@dataclass(frozen=True, eq=False)
class _Simulator:
    """Simulates individuals of a design, and computes their scores."""

    source: Source
    structure: ModelStructure
    vector: Tensor
    scale: Tensor
    generator: Generator

    def copies(
        self, design: Cohort, num_simulated: int, chunk: int = SETTINGS.chunk
    ) -> Iterator[tuple[Cohort, Tensor]]:
        """Simulated data in parts, and the parameters that they were simulated with."""
        copies, size = math.ceil(num_simulated / len(design)), max(1, chunk // len(design))
        for begin in range(0, copies, size):
            repeated = design.repeat(min(size, copies - begin))
            unlabelled = Cohort(
                dict(repeated.series),
                repeated.doses,
                dict(repeated.covariates),
                time_varying=dict(repeated.time_varying),
                categories=repeated.categories,
            )
            yield self._simulated(unlabelled)

    def _simulated(self, design: Cohort) -> tuple[Cohort, Tensor]:
        structure, estimates = self.structure, self.source.estimates
        draws = structure.draw_individuals(design, estimates, 1, self.generator)
        shared = structure.unconstrain_population(estimates, structure.shared)
        data, failed = structure.simulate(
            design, draws[0], shared.expand(len(design), -1), estimates, self.generator
        )
        if bool(failed.any()):
            raise FitError(
                f"{int(failed.sum())} of {len(design)} simulated individuals are not finite.",
                "a population under which the design can be simulated.",
                "check the estimates, the doses and the times of the design.",
            )
        return data, draws

    def complete_scores(self, data: Cohort, draws: Tensor) -> Tensor:
        """Scores of the complete data, shape ``(individual, population)``."""
        steps = SETTINGS.relative_step * self.scale
        with torch.no_grad():
            return complete_scores(self.structure, data, data, draws, self.vector, steps)[0]

    def marginal_scores(self, data: Cohort) -> _Scores:
        """Scores of the data."""
        with warnings.catch_warnings():  # they would name simulated individuals
            warnings.simplefilter("ignore", AmortizedWarning)
            posterior = sample_individuals(
                self.source.model,
                data,
                self.source.estimates,
                guide=self.source.guide_for(data),
                num_draws=SETTINGS.num_draws,
                seed=fork_seed(self.generator),
                estimator=self.source.estimator,
                max_chains=0,
            )
        poor = int((posterior.estimate.pareto_k > PARETO.limit).sum())
        draws, steps = posterior.unconstrained, SETTINGS.relative_step * self.scale
        parts = (self.structure, data, data.repeat(len(draws)), draws, self.vector)
        with torch.no_grad():
            complete = complete_scores(*parts, steps).nan_to_num(0.0, 0.0, 0.0)
        control = torch.einsum("kn,kna,knb->nab", posterior.weights, complete, complete)
        return _Scores(follow(posterior, self.scale).scores, control, poor)
