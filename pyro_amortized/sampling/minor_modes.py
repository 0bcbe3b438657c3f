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
from ..numerics.newton_steps import newton, newton_step, stencil
from .sampler import Sampler
from .sampling_stage import Stage
from .student_mixture import StudentMixture, squared_distance
from .weighted_draws import Sampled
from .weighted_fits import mixture_of_weighted


@dataclass(frozen=True)
class SearchEffort:
    r"""Effort of the search, and which modes are relevant.

    Args:
        num_starts: Starts per individual. On 16 individuals whose absorption and elimination may be
            exchanged, with residual errors of 0.02 to 0.1, 24 starts found every separate mode with
            more than 0.4 % of the posterior in 5 of 5 runs, 12 starts in 3 to 5.
        num_steps: Newton steps of every start; more found no more there.
        num_followed: Of the starts of an individual that have not arrived then, so many with the
            largest masses take further steps. Of cells whose posterior is a hundredth of the
            population as wide, 6 % of the starts had arrived after 6 steps and 60 % after 12; a fit
            lost the larger mode of four of 50 and ended 35 in log likelihood below the maximum.
        num_more_steps: Further steps that are taken at a time.
        max_steps: Most steps in all.
        min_steps: Newton steps after which starts that are at the same, covered mode are followed
            no further, but for one.
        max_values: Largest number of observed values whose density is evaluated, some seconds for a
            closed form. Of the individuals for which this is not enough, those with the lowest
            likelihood per value are searched.
        num_starts_of_others: Starts of the others. Without them the log likelihood of 1,000 cells
            was up to 10 too small, with a Monte Carlo error of 1.6. `num_modes` of individuals that
            are not searched is 0.
        max_values_of_others: Observed values whose density is evaluated for the others; of 1,000
            cells all are searched.
        min_mass: Smallest mass relative to that of the largest mode. The log likelihood lacks 0.002
            without it.
        min_cover: A mode is covered if the mixture has this part of its density there.
        max_added: Most modes that are added to the mixture of an individual.
        min_weight: Smallest weight of an added mode.
        max_counted: Most modes that are counted.
        max_slope: Largest slope, in units of the scale that the steps have found, at which a start
            has arrived.
        same_mode_distance: Squared Mahalanobis distance below which two modes are the same.
    """

    num_starts: int = 48
    num_steps: int = 6
    num_followed: int = 12
    num_more_steps: int = 5
    max_steps: int = 26
    min_steps: int = 2
    max_values: int = 100_000_000
    num_starts_of_others: int = 8
    max_values_of_others: int = 200_000_000
    min_mass: float = 5e-4
    min_cover: float = 0.25
    max_added: int = 2
    min_weight: float = 0.05
    max_counted: int = 5
    max_slope: float = 0.3
    same_mode_distance: float = 9.0


EFFORT = SearchEffort()


def with_minor_modes(
    sampler: Sampler, sampled: Sampled, generator: Generator, num_values: Tensor | None = None
) -> Sampled:
    r"""The draws, in which individuals with a mode that was missed are drawn again.

    Individuals that are drawn from the guide, and those that were searched before, are left out.

    Args:
        sampler: The sampler that made the draws.
        sampled: The draws.
        generator: Source of randomness.
        num_values: Number of observed values of each individual, shape ``(individual,)``. Default:
            one.
    """
    num_points = len(stencil(sampled.weighted.draws.shape[-1]))
    rows = searched_rows(sampled, num_values)
    others = searched_rows(sampled, num_values, rows)
    of_others = EFFORT.num_starts_of_others
    for searched, num_starts in ((rows, EFFORT.num_starts), (others, of_others)):
        size = max(1, sampler.settings.max_rows // (num_starts * num_points))
        for part in searched.split(size) if len(searched) else ():
            sampled = _with_minor_modes_of(sampler, sampled, part, num_starts, generator)
    return sampled


def searched_rows(
    sampled: Sampled, num_values: Tensor | None = None, besides: Tensor | None = None
) -> Tensor:
    """The individuals that are searched: those with the lowest likelihood per value, as many as
    are affordable, in increasing order; or, besides those, others that are searched from fewer
    starts. Other arguments as in :func:`with_minor_modes`.
    """
    refinement = sampled.refinement
    is_open = refinement.refined & (refinement.num_modes == 0)
    num_starts, max_values = EFFORT.num_starts, EFFORT.max_values
    if besides is not None:
        is_open = is_open.index_fill(0, besides, False)
        num_starts, max_values = EFFORT.num_starts_of_others, EFFORT.max_values_of_others
    rows = is_open.nonzero()[:, 0]
    per_row = num_starts * EFFORT.num_steps * len(stencil(sampled.weighted.draws.shape[-1]))
    log_weights = sampled.weighted.log_weights[:, rows]
    counts = log_weights.new_ones(len(rows)) if num_values is None else num_values[rows]
    log_likelihood = log_weights.logsumexp(0) - math.log(len(log_weights))
    lowest = (log_likelihood / counts.clamp(min=1)).argsort()
    affordable = (counts[lowest] * per_row).cumsum(0) <= max_values
    return rows[lowest[affordable]].sort().values


def _with_minor_modes_of(
    sampler: Sampler, sampled: Sampled, rows: Tensor, num_starts: int, generator: Generator
) -> Sampled:
    """The same for some of the individuals, from so many starts of each."""
    mixture = sampled.refinement.mixture.take(rows)
    every, log_cover = _modes(sampler, mixture, rows, num_starts, generator)
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
    pilot = sampler.from_mixture(part, num_draws, own, generator, stretch=True)
    part = part.with_mixtures(everyone, mixture_of_weighted(pilot, 0, generator, mixture))
    weighted = sampler.from_mixture(part, num_draws, own, generator, stretch=True)
    return sampled.replaced(own, Sampled(weighted, part.at(Stage.MIXTURE)))


def _modes(
    sampler: Sampler,
    mixture: StudentMixture,
    rows: Tensor,
    num_starts: int,
    generator: Generator,
) -> tuple[StudentMixture, Tensor]:
    """The modes that the starts lead to, as normal approximations ``(individual, start)`` with
    their masses relative to the largest, and the log density of the mixtures there, same shape.
    """
    num = len(rows)
    size = max(num_starts, sampler.settings.num_population_draws)
    population = sampler.population(size, rows, generator)
    centered = population - population.mean(0)
    covariance = torch.einsum("knd,kne->nde", centered, centered) / size
    starts = population[:num_starts].transpose(0, 1)
    scales = factored(covariance).unsqueeze(1).expand(-1, num_starts, -1, -1)
    nothing = torch.full((num, num_starts), -math.inf, dtype=starts.dtype)
    places = StudentMixture(nothing, starts, scales)
    active = torch.ones(num, num_starts, dtype=torch.bool)
    for step in range(EFFORT.num_steps):
        places = _after_step(sampler, places, active, rows)
        if step + 1 >= EFFORT.min_steps:
            active = active & ~_is_repeated(places, mixture, active)
    places, is_mode = _followed(sampler, places, mixture, active, rows)
    log_mass = places.log_weights.masked_fill(~is_mode, -math.inf)
    log_share = (log_mass - log_mass.amax(1, keepdim=True)).nan_to_num(-math.inf, -math.inf)
    log_cover = mixture.log_prob(places.means.transpose(0, 1)).T
    return replace(places, log_weights=log_share), log_cover


def _followed(
    sampler: Sampler,
    places: StudentMixture,
    mixture: StudentMixture,
    active: Tensor,
    rows: Tensor,
) -> tuple[StudentMixture, Tensor]:
    """The places after further steps of the best starts that have not arrived, and which starts are
    at modes, shape ``(individual, start)``.
    """
    is_mode = _has_arrived(sampler, places, active, rows)
    open_starts = active & ~is_mode
    for _ in range((EFFORT.max_steps - EFFORT.num_steps) // EFFORT.num_more_steps):
        log_mass = places.log_weights.masked_fill(~open_starts, -math.inf)
        best = log_mass.topk(min(EFFORT.num_followed, log_mass.shape[1]), 1).indices
        open_starts = open_starts & torch.zeros_like(active).scatter(1, best, True)
        if not bool(open_starts.any()):
            break
        for _ in range(EFFORT.num_more_steps):
            places = _after_step(sampler, places, open_starts, rows)
        is_mode = is_mode | _has_arrived(sampler, places, open_starts, rows)
        settled = open_starts | is_mode
        open_starts = open_starts & ~is_mode & ~_is_repeated(places, mixture, settled)
    return places, is_mode


def _after_step(
    sampler: Sampler, places: StudentMixture, active: Tensor, rows: Tensor
) -> StudentMixture:
    """The places of the active starts after one Newton step, with the log masses of the normal
    approximations there.
    """
    own = rows.unsqueeze(1).expand_as(active)[active]

    def target(points: Tensor) -> Tensor:
        return sampler.target(points, own)

    location, scale_tril, log_density = newton_step(
        target, places.means[active], places.scale_trils[active]
    )
    log_mass = log_density + scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    moved = (log_mass.nan_to_num(-math.inf, -math.inf, -math.inf), location, scale_tril)
    return StudentMixture(
        *(
            old.masked_scatter(active.reshape(*active.shape, *(1,) * (old.dim() - 2)), new)
            for old, new in zip(vars(places).values(), moved, strict=True)
        )
    )


def _is_repeated(places: StudentMixture, mixture: StudentMixture, active: Tensor) -> Tensor:
    """Whether a start is at a mode that the mixture covers and that a better start of the same
    individual is at, shape ``(individual, start)``.
    """
    log_share = places.log_weights - places.log_weights.amax(1, keepdim=True)
    log_cover = mixture.log_prob(places.means.transpose(0, 1)).T
    settled = active & _is_covered(replace(places, log_weights=log_share), log_cover)
    distances = squared_distance(
        places.means.transpose(0, 1), mixture.means, mixture.scale_trils
    ).transpose(0, 1)
    nearest, component = distances.min(-1)
    settled = settled & (nearest < EFFORT.same_mode_distance)
    is_at = torch.nn.functional.one_hot(component, mixture.means.shape[1]).bool()
    is_at = is_at & settled.unsqueeze(-1)
    log_mass = torch.where(is_at, places.log_weights.unsqueeze(-1), -math.inf)
    best = log_mass.argmax(1).gather(1, component)  # of the starts at the same component
    rows = torch.arange(len(best)).unsqueeze(1)
    white = torch.linalg.solve_triangular(
        places.scale_trils[rows, best],
        (places.means - places.means[rows, best]).unsqueeze(-1),
        upper=False,
    )
    is_same = white.pow(2).sum((-2, -1)) < EFFORT.same_mode_distance
    return settled & is_same & (best != torch.arange(best.shape[1]))


def _has_arrived(sampler: Sampler, places: StudentMixture, active: Tensor, rows: Tensor) -> Tensor:
    """Whether an active start has come to a maximum, shape ``(individual, start)``."""
    own = rows.unsqueeze(1).expand_as(active)[active]
    means, scale_trils = places.means[active], places.scale_trils[active]
    d = means.shape[-1]
    optima = newton(lambda x: sampler.target(x, own), means, scale_trils, 0)
    slopes = (optima.shape[:, :d] - optima.shape[:, d : 2 * d]) / 2
    arrived = slopes.abs().amax(1) < EFFORT.max_slope
    return torch.zeros_like(active).masked_scatter(active, arrived)


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
