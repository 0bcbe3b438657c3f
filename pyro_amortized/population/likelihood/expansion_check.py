r"""An expanded likelihood beside the density of the model, over the posterior of the population.

On the same draws k of an individual, which follow the population, the difference

.. math:: d_i(\Psi) = \log \sum_k w_{ik}(\Psi) - \log \sum_k \tilde w_{ik}(\Psi)

between the weights by the density of the model and those by its expansion is a smooth function of
the population. It is computed at some populations and learned by a regression on polynomials,
written with the kernel :math:`(1 + z^\top z' / P)^3` of the P standardised parameters z. The ridge
penalty is the one with the smallest errors at populations that are left out. Both sums have nearly
the same Monte Carlo error, so that some of the draws are enough.

The populations are chosen by their weights, so that the errors at new ones, before they enter the
regression, are those that the posterior has. It ends when they are small. If it does not come to
this, all populations whose weights matter are evaluated.

References:
    Rasmussen, Williams (2006), Gaussian Processes for Machine Learning, chapter 5 (errors of
    regressions without one observation).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ...model import Population
from ...runtime.random_numbers import make_generator
from ...sampling.importance_weights import finite_or_zero_weight, normalized_weights, resample
from .exact_likelihood import ExactLikelihood
from .expanded_likelihood import ExpandedLikelihood


@dataclass(frozen=True)
class CheckSettings:
    """How many populations are evaluated, at how many draws, and constants of the regression."""

    # Populations that are evaluated before the error is looked at again: half of them by their
    # weights, half by the roots of the weights of those where an individual is far.
    num_populations: int = 32
    # Number of populations from which on all are evaluated whose weights matter.
    max_populations: int = 192
    # Log weight below the largest from which a population does not matter.
    negligible_log_weight: float = 15.0

    # Draws per individual. In an ODE of 48 individuals 30 in place of 300 changed the sum of all
    # differences by 0.001.
    num_draws: int = 60
    # Monte Carlo standard error of the sum of all differences, above which all draws are used, and
    # the ratio of the two weights of an individual below which they are.
    max_draw_error: float = 0.05
    min_ratio: float = 0.2
    # The expansion has value, gradient and curvature of the likelihood at its center, so that the
    # third order comes first.
    degree: int = 3
    # Ridge penalties that are compared, in units of the mean diagonal of the kernel matrix.
    penalties: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    # Sum of differences beyond which a population is not used in the regression: the expansion has
    # no meaning there, and one such value would decide all coefficients.
    max_difference: float = 5.0


CHECK = CheckSettings()


class ModelDifferences:
    r"""Differences of some individuals between the model and its expansion.

    The draws are chosen by the mean :math:`q_k` of their normalised weights by the expansion,
    :math:`\tilde w_k`, and of those at the population that they were made at: a draw to which the
    expansion gives all of the weight is then among them. The difference is the logarithm of

    .. math:: 1 + \frac1n \sum_k \frac{w_k / \sum_l \tilde w_l - \tilde w_k}{q_k} .

    Where its Monte Carlo error is large, all draws are used.

    Args:
        likelihood: The expanded likelihood.
        rows: The individuals, shape ``(row,)``.
    """

    def __init__(self, likelihood: ExpandedLikelihood, rows: Tensor) -> None:
        self.likelihood, self.rows = likelihood, rows
        part = likelihood.individuals.take(rows)
        self.exact = ExactLikelihood(part, likelihood.following.take(rows))
        self.at_center = normalized_weights(part.log_weights)
        self.num_draws = min(CHECK.num_draws, part.num_draws)
        some = self.exact.draws[: self.num_draws]
        self.density = part.structure.prepared_density(part.cohort, some)

    def __call__(self, vector: Tensor) -> Tensor:
        """The differences at an unconstrained population, shape ``(row,)``."""
        population = self.likelihood.structure.constrain_population(vector)
        with torch.no_grad():
            expanded = self.likelihood.log_weights(population)[:, self.rows]
            ratio, error = self._of_some(population, vector, expanded)
            if bool((ratio < CHECK.min_ratio).any()) or error > CHECK.max_draw_error:
                exact = self.exact.log_weights(population)
                return exact.logsumexp(0) - expanded.logsumexp(0)
        return ratio.log()

    def _of_some(
        self, population: Population, vector: Tensor, expanded: Tensor
    ) -> tuple[Tensor, float]:
        """Ratios of the two sums from some draws, shape ``(row,)``, and the Monte Carlo standard
        error of the sum of their logarithms.
        """
        weights, total = normalized_weights(expanded), expanded.logsumexp(0)
        chances = (weights + self.at_center) / 2
        picked = resample(chances, self.num_draws, make_generator(0)).reshape(-1, len(self.rows))
        draws, log_det = self.exact.following.moved(self.exact.draws, vector)
        chosen = draws.gather(0, picked.unsqueeze(-1).expand(-1, -1, draws.shape[-1]))
        density = self.density(population, chosen)
        log_proposal = self.exact.individuals.log_proposal.gather(0, picked)
        exact = density.total + log_det - log_proposal
        exact = finite_or_zero_weight(exact).masked_fill(
            self.exact.impossible.gather(0, picked), -math.inf
        )
        terms = ((exact - total).exp() - weights.gather(0, picked)) / chances.gather(0, picked)
        ratio = 1 + terms.mean(0)
        errors = terms.std(0) / self.num_draws**0.5 / ratio.clamp(min=CHECK.min_ratio)
        return ratio, float(errors.square().sum().sqrt())


@dataclass(frozen=True, eq=False)
class ExpansionCorrection:
    r"""A regression of the differences on the population.

    Args:
        points: Standardised populations, shape ``(point, parameter)``.
        differences: Shape ``(point, row)``.
    """

    points: Tensor
    differences: Tensor

    def with_points(self, points: Tensor, differences: Tensor) -> "ExpansionCorrection":
        """The same with further populations, where the expansion has a meaning."""
        total = differences.sum(1).abs()
        used = total <= CHECK.max_difference  # False for NaN
        return ExpansionCorrection(
            torch.cat([self.points, points[used]]), torch.cat([self.differences, differences[used]])
        )

    def __call__(self, points: Tensor) -> Tensor:
        """The differences at other populations, shape ``(point, row)``."""
        if not len(self.points):
            return points.new_zeros(len(points), self.differences.shape[1])
        return _kernel(points, self.points) @ self._coefficients()

    def _coefficients(self) -> Tensor:
        kernel = _kernel(self.points, self.points)
        unit = kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype)
        smallest, best = torch.inf, torch.zeros_like(self.differences)
        for penalty in CHECK.penalties:
            inverse = torch.linalg.inv(kernel + penalty * unit)
            coefficients = inverse @ self.differences
            left_out = coefficients.sum(1) / inverse.diagonal()
            error = float(left_out.square().mean())
            if error < smallest:
                smallest, best = error, coefficients
        return best


def _kernel(points: Tensor, others: Tensor) -> Tensor:
    return (1 + points @ others.T / points.shape[1]) ** CHECK.degree


class ExpandedPopulations(NamedTuple):
    r"""Populations whose log likelihoods are known by an expansion.

    Args:
        vectors: Unconstrained, shape ``(population, parameter)``.
        varying: The coordinates that vary, shape ``(population, known)``.
        values: Log likelihoods, shape ``(population, individual)``.
        log_ratio: Log prior less log proposal, shape ``(population,)``.
        is_far: Whether the draws of an individual have moved far, shape ``(population,
            individual)``.
    """

    vectors: Tensor
    varying: Tensor
    values: Tensor
    log_ratio: Tensor
    is_far: Tensor

    def log_weights(self, values: Tensor) -> Tensor:
        """Log weights with corrected log likelihoods."""
        return finite_or_zero_weight(values.sum(-1) + self.log_ratio)

    def matter(self, values: Tensor) -> Tensor:
        """Which populations are not negligible beside the one with the largest weight."""
        log_weights = self.log_weights(values)
        return log_weights > log_weights.amax() - CHECK.negligible_log_weight


class ExpansionCheck:
    r"""Compares an expanded likelihood with the model, and corrects it.

    What was learned from some populations is used for the next ones.

    Args:
        likelihood: The expanded likelihood.
        center: The estimates that vary, unconstrained, shape ``(known,)``.
        scale_tril: Cholesky factor of their covariance.
    """

    def __init__(self, likelihood: ExpandedLikelihood, center: Tensor, scale_tril: Tensor) -> None:
        self.likelihood, self.center, self.scale_tril = likelihood, center, scale_tril
        self.differences: ModelDifferences | None = None
        self.regression = self._no_regression(0)

    def _no_regression(self, num_rows: int) -> ExpansionCorrection:
        zero = self.center.new_zeros
        return ExpansionCorrection(zero(0, len(self.center)), zero(0, num_rows))

    def corrected(
        self, candidates: ExpandedPopulations, max_error: float, generator: Generator
    ) -> tuple[Tensor, float]:
        """Log likelihoods, shape ``(population, individual)``, and the root mean square error of
        their sum over the individuals at populations that were compared with the model; zero where
        there is none.
        """
        corrected, error = candidates.values, 0.0
        included = candidates.is_far.new_zeros(corrected.shape[1])
        while True:  # other populations may matter after the correction
            far = candidates.is_far[candidates.matter(corrected)].any(0)
            if not bool((far & ~included).any()):
                return corrected, error
            included = included | far
            differences = self._differences_of(included)
            corrected, error = self._learned(candidates, differences, max_error, generator)

    def _learned(
        self,
        candidates: ExpandedPopulations,
        differences: ModelDifferences,
        max_error: float,
        generator: Generator,
    ) -> tuple[Tensor, float]:
        """As :meth:`corrected`, with the differences of some individuals."""
        values, rows = candidates.values, differences.rows
        points = self._standardised(candidates.varying)
        exact = values.new_zeros(len(values), len(rows))
        known = torch.zeros(len(values), dtype=torch.bool)
        error = math.inf
        while True:
            shift = torch.where(known.unsqueeze(1), exact, self.regression(points))
            corrected = values.index_add(1, rows, shift)
            if error <= max_error:
                return corrected, error
            part = self._chosen(candidates, corrected, known, generator)
            if not len(part):  # all that matter have been evaluated
                return corrected, 0.0
            found = torch.stack([differences(x) for x in candidates.vectors[part]])
            error = float((found - shift[part]).sum(1).square().mean().sqrt().nan_to_num(math.inf))
            self.regression = self.regression.with_points(points[part], found)
            exact[part], known[part] = found, True

    def _differences_of(self, far: Tensor) -> ModelDifferences:
        """Those of some individuals, a boolean for each, and of those that were compared before."""
        rows, structure = far.clone(), self.likelihood.structure
        if self.differences is not None:
            rows[self.differences.rows] = True
        if any(site.plates for site in structure.individual.values()):
            rows[:] = True  # inner plates may be as large as the individuals of a call need
        if self.differences is None or int(rows.sum()) > len(self.differences.rows):
            self.differences = ModelDifferences(self.likelihood, rows.nonzero()[:, 0])
            self.regression = self._no_regression(int(rows.sum()))
        return self.differences

    def _standardised(self, varying: Tensor) -> Tensor:
        offset = (varying - self.center).T
        return torch.linalg.solve_triangular(self.scale_tril, offset, upper=False).T

    def _chosen(
        self, candidates: ExpandedPopulations, values: Tensor, known: Tensor, generator: Generator
    ) -> Tensor:
        """Populations to evaluate next."""
        matters = candidates.matter(values) & ~known
        num_left, num = int(matters.sum()), CHECK.num_populations
        if int(known.sum()) >= CHECK.max_populations or num_left <= num:
            return matters.nonzero()[:, 0]
        log_weights = candidates.log_weights(values)
        weights = (log_weights - log_weights.amax()).exp() * matters
        chosen = torch.zeros_like(matters)
        is_far = candidates.is_far.any(1)
        for each in (weights, weights.sqrt() * is_far):
            left = each * ~chosen
            size = min(num // 2, int((left > 0).sum()))
            if size:
                chosen[torch.multinomial(left, size, generator=generator)] = True
        return chosen.nonzero()[:, 0]
