r"""How to weigh the values of an individual where all of them may be too high, or too low.

A laboratory, a salt or a batch of an assay multiplies all values of an individual by the same
factor (or adds the same to values of both signs). With the normal scores z of its prediction
discrepancies, their correlation R and their changes v for such a factor, the best estimate of its
logarithm is :math:`v^\top R^{-1} z / v^\top R^{-1} v`. The mean of z is much worse where random
effects correlate the values.

References:
    Aitken (1935), On least squares and linear combinations of observations, Proceedings of the
    Royal Society of Edinburgh 55.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...model import OutcomeKind
from ...numerics.robust_scale import QUARTILE_DISTANCE


@dataclass(frozen=True)
class LevelSettings:
    r"""How the weights are computed.

    Args:
        ridge: Part that is added to the variances: differences of values that a thousand
            simulations do not know, and that curves in the parameters bend, get no large weights.
        max_score: Largest size of a normal score of a simulation.
    """

    ridge: float = 0.02
    max_score: float = 4.0


DEFAULTS = LevelSettings()


class LevelWeights(NamedTuple):
    r"""Weights of the values, and what a common factor does to their scores.

    Args:
        weights: Weights that give a sum of variance one under the model, shape ``(individual,
            time)``; zero where nothing is recorded.
        slopes: Change of the score of a value for a change of its logarithm, or of the value where
            values have both signs or are counts, same shape.
        are_logarithms: Whether it is the logarithm.
    """

    weights: Tensor
    slopes: Tensor
    are_logarithms: bool

    def take(self, used: Tensor) -> "LevelWeights":
        """Some of the values, shape ``(value,)``."""
        return LevelWeights(self.weights[used], self.slopes[used], self.are_logarithms)


def level_weights(
    values: Tensor, observed: Tensor, simulated: Tensor, kind: OutcomeKind
) -> LevelWeights:
    """The weights of all values of one series.

    Args:
        values: The data, shape ``(individual, time)``.
        observed: Which are recorded, same shape.
        simulated: Simulations of the fit, shape ``(simulation, individual, time)``.
        kind: The kind of the values.
    """
    is_positive = kind == "continuous" and bool((values[observed] > 0).all())
    spread = _log_spread(simulated) if is_positive else simulated.std(0)
    slopes = torch.where(observed & (spread > 0), 1 / spread.clamp(min=1e-12), 0.0)
    ranks = simulated.argsort(0).argsort(0).double()
    scores = torch.special.ndtri((ranks + 0.5) / len(simulated)).clamp(
        -DEFAULTS.max_score, DEFAULTS.max_score
    )
    scores = torch.where(observed, scores, 0.0)
    correlation = torch.einsum("knt,kns->nts", scores, scores) / len(simulated)
    padded = (~observed).double() + DEFAULTS.ridge
    weights = torch.linalg.solve(correlation + padded.diag_embed(), slopes.unsqueeze(-1))[..., 0]
    variance = torch.einsum("nt,nts,ns->n", weights, correlation, weights)
    weights = weights / variance.clamp(min=1e-12).sqrt().unsqueeze(-1)
    return LevelWeights(torch.where(observed, weights, 0.0), slopes, is_positive)


def _log_spread(simulated: Tensor) -> Tensor:
    """Standard deviations of the logarithms of simulations, by the middle half: some may be
    negative.
    """
    levels = torch.tensor([0.25, 0.5, 0.75], dtype=simulated.dtype)
    low, middle, high = simulated.quantile(levels, dim=0)
    return (high - low) / QUARTILE_DISTANCE / middle.abs().clamp(min=1e-300)
