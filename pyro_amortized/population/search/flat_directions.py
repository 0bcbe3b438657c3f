r"""Directions of the population that the data do not determine.

With the scores :math:`S_i` of the individuals, a direction v in which
:math:`\sum_i (S_i^\top v)^2` and :math:`|\sum_i S_i^\top v|` are nearly zero, in units of the
prior, changes the likelihood of no individual: only a product of two parameters is determined, or
only the sum of two variances. A round does not move along it. What the differences of an expanded
likelihood promise there is their own error, a part of :math:`10^{-4}` of the information of single
parameters, which precise data make larger than the information of the prior: rounds went back and
forth until there were 40 of them, and such a direction had a standard error. The information is
therefore looked at again (:mod:`pyro_amortized.population.search.information_check`).

References:
    Berndt, Hall, Hall, Hausman (1974), Estimation and Inference in Nonlinear Structural Models,
    Annals of Economic and Social Measurement 3.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...numerics.cholesky import factored
from ...numerics.laplace import DEFAULTS as LAPLACE


@dataclass(frozen=True)
class FlatSettings:
    """When a direction counts as flat."""

    # Slope of the log likelihood of all individuals, per prior standard deviation, above which a
    # round moves along a direction without information. For the logarithm of a parameter that goes
    # to its limit, zero, the slope is half of the information: it must have gone so far that this
    # counts as flat.
    max_slope: float = 0.005


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
