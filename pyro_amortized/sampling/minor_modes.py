r"""A search for modes that the draws of an individual have missed.

Effective sample size and Pareto k do not show a mode that no draw has reached: with narrow,
separated modes (absorption and elimination exchanged, small residual error) a mode with 8 % of the
posterior was missed in every one of 30 runs, with Pareto k below 0.35. Newton steps from draws of
the individual's population lead to the modes, for all individuals at once. A mode with a relevant
mass that the mixture does not cover becomes a component of it, and the individual is drawn again.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ..numerics.cholesky import factored
from ..numerics.newton_steps import newton, stencil
from .adaptive_importance import Sampler
from .proposals import Refinement, Sampled
from .student_mixture import StudentMixture, squared_distance
from .weighted_fits import mixture_of_weighted


@dataclass(frozen=True)
class SearchEffort:
    """Effort of the search, and which modes are relevant."""

    # Starts per individual and Newton steps. On 16 individuals whose absorption and elimination may
    # be exchanged, with residual errors of 0.02 to 0.1, 24 starts found every separate mode with
    # more than 0.4 % of the posterior in 5 of 5 runs, 12 starts in 3 to 5. More than 6 steps found
    # no more.
    num_starts: int = 48
    num_steps: int = 6
    # Largest number of evaluated individuals, some seconds for a closed form; beyond it there is
    # no search, and `num_modes` is 0.
    max_evaluations: int = 3_000_000
    # Smallest mass relative to that of the largest mode. The log likelihood lacks 0.002 without it.
    min_mass: float = 5e-4
    # A mode is covered if the mixture has this part of its density there.
    min_cover: float = 0.25
    # Modes that are added to the mixture of an individual, and their smallest weight; modes that
    # are counted.
    max_added: int = 2
    min_weight: float = 0.05
    max_counted: int = 5
    # Largest slope, in units of the scale that the steps have found, at which a start has arrived.
    max_slope: float = 0.3
    # Squared Mahalanobis distance below which two modes are the same.
    same_mode_distance: float = 9.0


EFFORT = SearchEffort()


def with_minor_modes(sampler: Sampler, sampled: Sampled, generator: Generator) -> Sampled:
    r"""The draws, in which individuals with a mode that was missed are drawn again.

    Individuals that are drawn from the guide, and those that were searched before, are left out.

    Args:
        sampler: The sampler that made the draws.
        sampled: The draws.
        generator: Source of randomness.
    """
    refinement = sampled.refinement
    rows = (refinement.refined & (refinement.num_modes == 0)).nonzero()[:, 0]
    num_latent = sampled.weighted.draws.shape[-1]
    per_row = EFFORT.num_starts * EFFORT.num_steps * len(stencil(num_latent))
    if not 0 < len(rows) * per_row <= EFFORT.max_evaluations:
        return sampled
    size = max(1, sampler.settings.max_rows // (EFFORT.num_starts * len(stencil(num_latent))))
    for part in rows.split(size):
        sampled = _with_minor_modes_of(sampler, sampled, part, generator)
    return sampled


def _with_minor_modes_of(
    sampler: Sampler, sampled: Sampled, rows: Tensor, generator: Generator
) -> Sampled:
    """The same for some of the individuals."""
    mixture = sampled.refinement.mixture.take(rows)
    every, log_cover = _modes(sampler, mixture, rows, generator)
    relevant = every.log_weights > math.log(EFFORT.min_mass)
    num_modes = sampled.refinement.num_modes.clone()
    num_modes[rows] = _largest(every, relevant, EFFORT.max_counted)[1].sum(1).clamp(min=1)
    found, missed = _largest(every, relevant & ~_is_covered(every, log_cover), EFFORT.max_added)
    sampled = sampled._replace(refinement=replace(sampled.refinement, num_modes=num_modes))
    index = missed.any(1).nonzero()[:, 0]
    if len(index) == 0:
        return sampled
    own = rows[index]
    num_draws = len(sampled.weighted.draws)
    part = sampled.refinement.take(own)
    mixture = _with_components(part.mixture, found.take(index), missed[index])
    everyone = torch.arange(len(own))
    part = part.with_mixtures(everyone, mixture)
    pilot = sampler.from_mixture(part, num_draws, own, generator, True)
    part = part.with_mixtures(everyone, mixture_of_weighted(pilot, 0, generator, mixture))
    weighted = sampler.from_mixture(part, num_draws, own, generator, True)
    return sampled.replaced(own, Sampled(weighted, _refined(part)))


def _refined(part: Refinement) -> Refinement:
    return replace(part, refined=torch.ones_like(part.refined))


def _modes(
    sampler: Sampler, mixture: StudentMixture, rows: Tensor, generator: Generator
) -> tuple[StudentMixture, Tensor]:
    """The modes that all starts lead to, as normal approximations ``(individual, start)`` with
    their masses relative to the largest, and the log density of the mixtures there, same shape.
    """
    num, num_starts, d = len(rows), EFFORT.num_starts, mixture.means.shape[-1]
    size = max(num_starts, sampler.settings.num_population_draws)
    population = sampler.population(size, rows, generator)
    centered = population - population.mean(0)
    covariance = torch.einsum("knd,kne->nde", centered, centered) / size
    starts = population[:num_starts].flatten(0, 1)
    target = sampler.target_of_each(rows)
    optima = newton(target, starts, factored(covariance).repeat(num_starts, 1, 1), EFFORT.num_steps)
    log_density = target(optima.location.unsqueeze(0))[0]
    modes, scales, log_density = (
        x.unflatten(0, (num_starts, num)).transpose(0, 1)
        for x in (optima.location, optima.scale_tril, log_density)
    )
    log_det = scales.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_mass = (log_density + log_det).nan_to_num(-math.inf, -math.inf, -math.inf)
    slopes = (optima.shape[:, :d] - optima.shape[:, d : 2 * d]) / 2
    arrived = (slopes.abs().amax(1) < EFFORT.max_slope).unflatten(0, (num_starts, num)).T
    log_share = torch.where(arrived, log_mass - log_mass.amax(1, keepdim=True), -math.inf)
    log_share = log_share.nan_to_num(-math.inf, -math.inf, -math.inf)
    log_cover = mixture.log_prob(modes.transpose(0, 1)).T
    return StudentMixture(log_share, modes, scales), log_cover


def _is_covered(modes: StudentMixture, log_cover: Tensor) -> Tensor:
    """Whether the mixtures have enough density at the modes."""
    log_det = modes.scale_trils.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    num_latent = modes.means.shape[-1]
    peak = modes.log_weights - log_det - 0.5 * num_latent * math.log(2 * math.pi)
    return log_cover >= peak + math.log(EFFORT.min_cover)


def _largest(found: StudentMixture, relevant: Tensor, most: int) -> tuple[StudentMixture, Tensor]:
    """The distinct relevant modes with the largest shares, at most a given number, and whether
    there are so many, shape ``(individual, mode)``.
    """
    rows = torch.arange(len(relevant))
    chosen, is_mode = [], []
    for _ in range(most):
        share = found.log_weights.masked_fill(~relevant, -math.inf)
        best = share.argmax(1)
        chosen.append(best)
        is_mode.append(relevant[rows, best])
        at = found.means[rows, best].unsqueeze(0)
        distance = squared_distance(at, found.means, found.scale_trils)[0]
        relevant = relevant & (distance > EFFORT.same_mode_distance)
        relevant[rows, best] = False
    index = torch.stack(chosen, 1)
    every = rows.unsqueeze(1)
    parts = (found.log_weights[every, index], found.means[every, index])
    return StudentMixture(*parts, found.scale_trils[every, index]), torch.stack(is_mode, 1)


def _with_components(
    mixture: StudentMixture, found: StudentMixture, missed: Tensor
) -> StudentMixture:
    """The mixtures, in which the missed modes take the places of the components with the smallest
    weights.
    """
    rows = torch.arange(len(missed))
    share = found.log_weights.exp().clamp(EFFORT.min_weight, 0.5) * missed
    total = share.sum(1, keepdim=True)
    added = share / (1 + total)
    weights, means, scales = (
        mixture.log_weights.exp() / (1 + total),
        mixture.means.clone(),
        mixture.scale_trils.clone(),
    )
    order = weights.argsort(1)
    for j in range(missed.shape[1]):
        place, is_added = order[:, j], missed[:, j]
        own, at = rows[is_added], place[is_added]
        means[own, at] = found.means[is_added, j]
        scales[own, at] = found.scale_trils[is_added, j]
        weights[own, at] = added[is_added, j]
    return StudentMixture((weights / weights.sum(1, keepdim=True)).log(), means, scales)
