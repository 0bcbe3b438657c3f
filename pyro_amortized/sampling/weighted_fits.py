r"""Mixtures that are fitted to weighted draws, whose weights are first flattened.

A covariance cannot be estimated from a few effective draws. The log weights are therefore
multiplied by a power :math:`\tau \le 1` that is reduced until enough draws are effective,

.. math:: \bar w_k \propto w_k^\tau .
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from .importance_weights import normalized_weights
from .refinement_settings import REFINEMENT
from .sampling_stage import Stage
from .student_mixture import StudentMixture, fit_student_mixture
from .weighted_draws import Refinement, Sampled, Weighted


@dataclass(frozen=True)
class TemperingSettings:
    r"""Limits of the flattening.

    Args:
        effective_draws_per_dimension: Effective draws per component and dimension that a covariance
            needs.
        min_effective_draws: Fewest effective draws in all.
        max_effective_draws: Most effective draws that are required.
        max_effective_share: Largest share of the draws that can be required: weights that are
            flattened further would say little about the target.
        power_factor: Factor of the power of the weights in each step.
        max_steps: Most steps: 0.7 ** 30 = 2e-5.
    """

    effective_draws_per_dimension: float = 5.0
    min_effective_draws: float = 10.0
    max_effective_draws: float = 50.0
    max_effective_share: float = 0.2
    power_factor: float = 0.7
    max_steps: int = 30


TEMPERING = TemperingSettings()


def tempered_weights(log_weights: Tensor, num_effective: float) -> Tensor:
    r"""Normalised weights, flattened until enough draws are effective.

    Args:
        log_weights: Shape ``(draw, individual)``.
        num_effective: Number of effective draws to reach; a fifth of the draws is enough.

    Returns:
        Weights that sum to one over the draws, same shape.
    """
    power = torch.ones(log_weights.shape[1], dtype=log_weights.dtype)
    weights = normalized_weights(log_weights)
    num_effective = min(num_effective, TEMPERING.max_effective_share * len(log_weights))
    for _ in range(TEMPERING.max_steps):
        too_few = 1 / weights.pow(2).sum(0) < num_effective
        if not bool(too_few.any()):
            break
        power = torch.where(too_few, power * TEMPERING.power_factor, power)
        weights = normalized_weights(_multiplied(log_weights, power))
    return weights


def _multiplied(log_weights: Tensor, power: Tensor) -> Tensor:
    return torch.where(log_weights == -torch.inf, log_weights, log_weights * power)


def mixture_of_weighted(
    source: Weighted,
    num_components: int,
    generator: Generator,
    start: StudentMixture | None = None,
) -> StudentMixture:
    r"""A mixture fitted to weighted draws of every individual.

    Args:
        source: The weighted draws.
        num_components: Components per individual; not used if ``start`` is given.
        generator: Chooses the starts of the components.
        start: Mixtures to start from; the result has as many components.
    """
    if start is not None:
        num_components = start.means.shape[1]
    per_dimension = TEMPERING.effective_draws_per_dimension
    num_effective = min(
        TEMPERING.max_effective_draws,
        max(TEMPERING.min_effective_draws, per_dimension * num_components * source.draws.shape[-1]),
    )
    weights = tempered_weights(source.log_weights, num_effective)
    return fit_student_mixture(source.draws, weights, num_components, generator, start=start)


def refinement_of_draws(drawn: Sampled, generator: Generator) -> Refinement:
    r"""The refinement of some draws, with a mixture fitted to those of every individual that has
    none yet: it was served by the guide or the population.

    Args:
        drawn: The draws, and the refinement that they were made with.
        generator: Chooses the starts of the components.
    """
    weighted, refinement = drawn
    rows = (~refinement.refined).nonzero()[:, 0]
    if len(rows) == 0:
        return refinement
    part = weighted.take(rows)
    refinement = refinement.with_guides(rows, guide_mixture(part.draws, generator))
    mixture = mixture_of_weighted(part, REFINEMENT.num_served_components, generator)
    stage = refinement.stage.index_fill(0, rows, Stage.MIXTURE)
    return replace(refinement.with_mixtures(rows, mixture), stage=stage)


def mixture_of_equal(draws: Tensor, num_components: int, generator: Generator) -> StudentMixture:
    """A mixture fitted to draws of equal weight, shape ``(draw, individual, latent)``."""
    weights = torch.full(draws.shape[:2], 1 / len(draws), dtype=draws.dtype)
    return fit_student_mixture(draws, weights, num_components, generator)


def guide_mixture(draws: Tensor, generator: Generator) -> StudentMixture:
    r"""A mixture in the shape of the guide.

    Args:
        draws: Draws of the guide, shape ``(draw, individual, latent)``; the first ones are used.
        generator: Chooses the starts of the components.
    """
    draws = draws[: REFINEMENT.num_guide_draws]
    return mixture_of_equal(draws, REFINEMENT.num_guide_components, generator)
