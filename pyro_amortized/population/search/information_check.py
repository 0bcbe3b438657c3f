r"""The information of the likelihood on draws, without what the draws and the expansion add to it.

The draws are moved such that the slopes of their log weights vary least, and the variance of these
slopes is a part of the information: on the same draws it is too small
(:mod:`pyro_amortized.population.following.score_bias`).

An expanded likelihood has other errors: those of its differences, which matter in directions of
which the scores of the individuals show much less information, and those of the regression that
gives its mixed derivatives where there are many parameters. The latter matter where the data say
little: the standard error of a standard deviation of 73 patients was 0.94 in place of 0.84. The
information in such directions is computed again, by second differences of the density of the model
on the same draws (decisions 079 and 080).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...numerics.laplace import DEFAULTS as LAPLACE
from ...numerics.laplace import difference_steps
from ...numerics.maximization import Objective, observed_information
from ..likelihood.exact_likelihood import ExactLikelihood
from ..likelihood.expanded_likelihood import ExpandedLikelihood
from ..likelihood.expansion_settings import EXPANSION
from ..likelihood.likelihood_interface import Likelihood
from .flat_directions import flat_directions


@dataclass(frozen=True)
class InformationCheckSettings:
    """When the information in a direction is computed again."""

    # Largest part of the information that is taken off as its bias: where it is more, the first
    # order in the inverse number of draws does not hold.
    max_bias_share: float = 0.5
    # Smallest information in any direction, in units of the prior, below which the error of a
    # regression is taken off: that of a standard error of half of the prior's. And the draws of
    # each individual that show it: it is a difference on the same draws.
    max_weak: float = 4.0
    num_draws: int = 300
    # Values times draws times evaluations for it, and draws below which it is left out: with 15
    # parameters it takes 240 evaluations.
    max_values: int = 60_000_000
    min_draws: int = 100
    # Part of the information of the curvature below which that of the scores makes it doubtful.
    # Of 12 individuals the latter varies by 40 %.
    doubtful_share: float = 0.5
    # Step of the second differences, in standard errors of the doubtful information: the fall of
    # the log likelihood is 0.04, far above what a solver leaves. It is at most as long in prior
    # standard deviations, where the likelihood is flat.
    step: float = 0.3


INFORMATION = InformationCheckSettings()
MANY = 1_000_000  # coordinates: no mixed derivatives by a regression


def information_check(
    objective: Callable[[Likelihood], Objective],
    likelihood: Likelihood,
    vector: Tensor,
    scale: Tensor,
    free: Tensor,
    weights: Tensor | None = None,
    exact_mixed: bool = True,
) -> "InformationCheck | None":
    """The check of a likelihood, or of a weighted one of some individuals; None for one without a
    density. Without ``exact_mixed`` the error of the regression of mixed derivatives is left.
    """
    if likelihood.individuals.structure.estimator == "likelihood-free":
        return None
    return InformationCheck(objective, likelihood, vector, scale, free, weights, exact_mixed)


def without_bias(information: Tensor, bias: Tensor) -> Tensor:
    """An information less its bias, shape ``(coordinate, coordinate)`` each; less half of the
    information in directions in which the bias is more. Units are those of the prior.
    """
    values, vectors = torch.linalg.eigh(information)
    root = vectors * values.clamp(min=LAPLACE.flat_information).sqrt()
    inverse = torch.linalg.inv(root)
    shares, axes = torch.linalg.eigh(inverse @ bias @ inverse.T)
    half = root @ axes
    return information - (half * shares.clamp(max=INFORMATION.max_bias_share)) @ half.T


class InformationCheck:
    r"""An information less its bias, with that of doubtful directions computed again.

    Args:
        objective: Gives the objective with a likelihood, as a function of the vector.
        likelihood: The likelihood that the information is computed from.
        vector: The estimates, unconstrained, shape ``(population,)``.
        scale: Unit of the information, same shape.
        free: The coordinates of the information, a boolean for each.
        weights: Of the individuals, shape ``(individual,)``, where they stand for all; their
            scores then do not say as much, and only the bias is taken off. Default: none.
        exact_mixed: Whether the error of the regression of mixed derivatives is taken off.
    """

    def __init__(
        self,
        objective: Callable[[Likelihood], Objective],
        likelihood: Likelihood,
        vector: Tensor,
        scale: Tensor,
        free: Tensor,
        weights: Tensor | None = None,
        exact_mixed: bool = True,
    ) -> None:
        self.exact_mixed = exact_mixed
        self.vector, self.free, self.unit = vector, free, scale[free]
        following = likelihood.following
        self.scores = following.scores[:, free] * self.unit
        self.bias = self.scores.new_zeros(len(self.unit), len(self.unit))
        is_part = weights is not None and weights.ndim > 0
        if following.information_bias is not None:
            each = self.scores.new_ones(len(self.scores)) if weights is None else weights
            each = each.expand(len(self.scores))
            total = torch.einsum("n,npq->pq", each, following.information_bias)
            self.bias = total[free][:, free] * torch.outer(self.unit, self.unit)
        self.is_part = is_part
        self.objective, self.likelihood = objective, likelihood

    def __call__(self, information: Tensor) -> Tensor:
        """The information, shape ``(free, free)``, in units of the prior."""
        if isinstance(self.likelihood, ExpandedLikelihood) and not self.is_part:
            if self.likelihood.is_regressed and self.exact_mixed:
                weakest = float(torch.linalg.eigvalsh(information)[0])
                if weakest < INFORMATION.max_weak:
                    information = information - self._error_of_regression(self.likelihood)
            exact = ExactLikelihood(self.likelihood.individuals, self.likelihood.following)
            information = self._by_density(information, self.objective(exact))
        return without_bias(information, self.bias)

    def _error_of_regression(self, likelihood: ExpandedLikelihood) -> Tensor:
        """What the regression of the mixed derivatives adds to the information, on some of the
        draws.
        """
        num = likelihood.parts[0].gradient.shape[-1]
        per_draw = likelihood.individuals.cohort.num_values * num * (num + 1)
        num_draws = min(INFORMATION.num_draws, INFORMATION.max_values // per_draw)
        if num_draws < INFORMATION.min_draws:
            return torch.zeros_like(self.bias)
        some = likelihood.individuals.some(num_draws)
        parts = (some, likelihood.scale, None, likelihood.following)
        every = replace(EXPANSION, max_coordinates=MANY)
        information = [
            self._information_of(ExpandedLikelihood(*parts, settings=settings))
            for settings in (EXPANSION, every)
        ]
        return information[0] - information[1]

    def _information_of(self, likelihood: ExpandedLikelihood) -> Tensor:
        """Its information in the free coordinates."""
        objective = self.objective(likelihood)
        information = observed_information(
            lambda x: objective(self.vector.masked_scatter(self.free, x)),
            self.vector[self.free],
            difference_steps(likelihood.following.scores[:, self.free], self.unit) * self.unit,
        )
        return information * torch.outer(self.unit, self.unit)

    def _by_density(self, information: Tensor, objective: Objective) -> Tensor:
        """The information on the draws, with that of flat and of doubtful directions replaced."""
        flat = flat_directions(self.scores)[0]
        # Among several, those that the information tells apart.
        flat = flat @ torch.linalg.eigh(flat.T @ information @ flat).eigenvectors
        for direction in flat.T:
            found = self._along(objective, direction, LAPLACE.flat_information)
            if abs(found) < LAPLACE.flat_information:
                rest = torch.eye(len(direction)).to(direction)
                rest = rest - torch.outer(direction, direction)
                information = rest @ information @ rest
        values, directions = torch.linalg.eigh(information)
        by_scores = (self.scores @ directions).square().sum(0)
        for i in self._doubtful(values, by_scores).nonzero()[:, 0].tolist():
            value, direction = float(values[i]), directions[:, i]
            expected = max(value, float(by_scores[i]))
            change = self._along(objective, direction, expected) - value
            information = information + change * torch.outer(direction, direction)
        return information

    def _doubtful(self, values: Tensor, by_scores: Tensor) -> Tensor:
        """The directions whose information is computed again, a boolean for each, by their
        information and that of the scores.
        """
        is_small = by_scores < INFORMATION.doubtful_share * values
        is_small &= values > LAPLACE.flat_information
        is_doubtful = is_small | (values < LAPLACE.flat_information) & (by_scores > values.abs())
        return is_doubtful & (torch.maximum(values, by_scores) > LAPLACE.flat_information)

    def _along(self, objective: Objective, direction: Tensor, expected: float) -> float:
        """The information in a direction; what was expected where it is not finite."""
        step = INFORMATION.step / max(expected, 1.0) ** 0.5
        shift = torch.zeros_like(self.vector)
        shift[self.free] = step * direction * self.unit
        with torch.no_grad():
            center, ahead, behind = (
                float(objective(self.vector + x)) for x in (0 * shift, shift, -shift)
            )
        found = (2 * center - ahead - behind) / step**2
        return found if abs(found) < torch.inf else expected
