r"""Directions of the population that the data do not determine.

With the scores :math:`S_i` of the individuals, a direction v in which
:math:`\sum_i (S_i^\top v)^2` and :math:`|\sum_i S_i^\top v|` are nearly zero, in units of the
prior, changes the likelihood of no individual: only a product of two parameters is determined, or
only the sum of two variances. A round does not move along it. What the differences of an expanded
likelihood promise there is their own error, a part of :math:`10^{-4}` of the information of single
parameters, which precise data make larger than the information of the prior: rounds went back and
forth until there were 40 of them, and such a direction had a standard error. The information in
directions for which the scores show much less is therefore computed again, by second differences of
the density of the model on the same draws.

References:
    Berndt, Hall, Hall, Hausman (1974), Estimation and Inference in Nonlinear Structural Models,
    Annals of Economic and Social Measurement 3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..numerics.cholesky import factored
from ..numerics.laplace import DEFAULTS as LAPLACE
from ..numerics.maximization import Objective
from .exact_likelihood import ExactLikelihood
from .expanded_likelihood import ExpandedLikelihood
from .likelihood_interface import Likelihood


@dataclass(frozen=True)
class FlatSettings:
    """When a direction counts as flat, and when its information is computed again."""

    # Slope of the log likelihood of all individuals, per prior standard deviation, above which a
    # round moves along a direction without information. For the logarithm of a parameter that goes
    # to its limit, zero, the slope is half of the information: it must have gone so far that this
    # counts as flat.
    max_slope: float = 0.005
    # Part of the information of the curvature below which that of the scores makes it doubtful.
    # Of 12 individuals the latter varies by 40 %.
    doubtful_share: float = 0.5
    # Step of the second differences, in standard errors of the doubtful information: the fall of
    # the log likelihood is 0.04, far above what a solver leaves. It is at most as long in prior
    # standard deviations, where the likelihood is flat.
    step: float = 0.3


FLAT = FlatSettings()


def flat_directions(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flat directions and the others, shape ``(parameter, direction)``, and the information of the
    latter, from scores in units of the prior, shape ``(individual, parameter)``.
    """
    information, directions = torch.linalg.eigh(scores.T @ scores)
    slopes = (scores.sum(0) @ directions).abs()
    is_flat = (information < LAPLACE.flat_information) & (slopes < FLAT.max_slope)
    return directions[:, is_flat], directions[:, ~is_flat], information[~is_flat]


def round_steps(scores: Tensor, scale: Tensor, hold_flat: bool) -> Tensor:
    r"""Steps of about one standard error, shape ``(parameter, step)``: the information is about the
    sum of the outer products of the scores (Berndt et al. 1974).

    Args:
        scores: Shape ``(individual, parameter)``.
        scale: Size of a large step in each parameter, shape ``(parameter,)``.
        hold_flat: Leave out directions that are flat.
    """
    scores = scores * scale
    if hold_flat:
        flat, others, information = flat_directions(scores)
        if flat.shape[1] and others.shape[1]:
            return scale.unsqueeze(1) * others / (information + 1).sqrt()
    identity = torch.eye(scores.shape[1], dtype=scores.dtype)
    root = factored(scores.T @ scores + identity)
    return scale.unsqueeze(1) * torch.linalg.solve_triangular(root.T, identity, upper=True)


def information_check(
    objective: Callable[[Likelihood], Objective],
    likelihood: Likelihood,
    vector: Tensor,
    scale: Tensor,
    free: Tensor,
) -> "InformationCheck | None":
    """The check of an expanded likelihood; None for others, which have no error of differences."""
    if not isinstance(likelihood, ExpandedLikelihood):
        return None
    if likelihood.structure.estimator == "likelihood-free":
        return None
    return InformationCheck(objective, likelihood, vector, scale, free)


class InformationCheck:
    r"""Second differences of the density of the model where the scores contradict the information.

    Args:
        objective: Gives the objective with a likelihood, as a function of the vector.
        likelihood: The likelihood that the information is computed from.
        vector: The estimates, unconstrained, shape ``(population,)``.
        scale: Unit of the information, same shape.
        free: The coordinates of the information, a boolean for each.
    """

    def __init__(
        self,
        objective: Callable[[Likelihood], Objective],
        likelihood: ExpandedLikelihood,
        vector: Tensor,
        scale: Tensor,
        free: Tensor,
    ) -> None:
        self.vector, self.free, self.unit = vector, free, scale[free]
        self.scores = likelihood.following.scores[:, free] * self.unit
        exact = ExactLikelihood(likelihood.individuals, likelihood.following)
        self.objective = objective(exact)

    def __call__(self, information: Tensor) -> Tensor:
        """The information, shape ``(free, free)``, with that of doubtful directions replaced."""
        flat = flat_directions(self.scores)[0]
        # Among several, those that the information tells apart.
        flat = flat @ torch.linalg.eigh(flat.T @ information @ flat).eigenvectors
        for direction in flat.T:
            found = self._information(direction, LAPLACE.flat_information)
            if abs(found) < LAPLACE.flat_information:
                rest = torch.eye(len(direction)).to(direction)
                rest = rest - torch.outer(direction, direction)
                information = rest @ information @ rest
        values, directions = torch.linalg.eigh(information)
        by_scores = (self.scores @ directions).square().sum(0)
        is_small = by_scores < FLAT.doubtful_share * values
        is_small &= values > LAPLACE.flat_information
        is_doubtful = is_small | (values < LAPLACE.flat_information) & (by_scores > values.abs())
        is_doubtful &= torch.maximum(values, by_scores) > LAPLACE.flat_information
        for i in is_doubtful.nonzero()[:, 0].tolist():
            value, direction = float(values[i]), directions[:, i]
            expected = max(value, float(by_scores[i]))
            change = self._information(direction, expected) - value
            information = information + change * torch.outer(direction, direction)
        return information

    def _information(self, direction: Tensor, expected: float) -> float:
        """The information in a direction; what was expected where it is not finite."""
        step = FLAT.step / max(expected, 1.0) ** 0.5
        shift = torch.zeros_like(self.vector)
        shift[self.free] = step * direction * self.unit
        with torch.no_grad():
            center, ahead, behind = (
                float(self.objective(self.vector + x)) for x in (0 * shift, shift, -shift)
            )
        found = (2 * center - ahead - behind) / step**2
        return found if abs(found) < torch.inf else expected
