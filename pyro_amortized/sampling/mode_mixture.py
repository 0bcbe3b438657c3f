r"""Mixtures around the modes of many small targets.

Where a proposal is far too wide, a few of its draws have all the weight, and their covariance is
meaningless. Newton steps from the best draws, among them draws on both sides of a gap, lead to the
modes; the curvature there gives normal approximations. Narrow curved regions and tails do not show
in the curvature. Points that start at draws of the normal approximations explore them by
differential evolution: point a moves by the difference of two others,

.. math:: x_a' = x_a + \gamma (x_b - x_c) + \epsilon, \qquad \gamma = 2.38 / \sqrt{2 d},

accepted with the probability of Metropolis. A mixture is fitted to the places they visited.

References:
    Ter Braak (2006), A Markov chain Monte Carlo version of the genetic algorithm Differential
    Evolution.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..numerics.cholesky import factored
from ..numerics.newton_steps import LogTarget, LogTargetOf, climb
from .student_mixture import StudentMixture, fit_student_mixture, squared_distance

NUM_MODES = 5  # one start each: see _starts


@dataclass(frozen=True)
class ModeSettings:
    r"""Effort of the search for modes and of the differential evolution.

    Args:
        num_newton_steps: Newton steps from every start; more where the log density of an individual
            still rises.
        num_points: Points per target, an even number: 24 points and 60 steps left an error of the
            log likelihood of 50 cells of 0.5, 32 points and 100 steps 0.35 (decision 030).
        gamma: The differences of points are multiplied by this number over the root of twice the
            number of parameters (Ter Braak 2006).
        mode_jump_interval: Every so many steps they are multiplied by one, which moves points
            between modes (Ter Braak 2006).
        noise: Standard deviation of epsilon as a part of the median deviation of the points.
        min_mode_share: Smallest share of a mode in the start of the evolution.
        same_mode_distance: Squared Mahalanobis distance below which two modes are the same.
        repeated_mode_log_mass: What is subtracted from the log mass of the second of two equal
            modes: exp(-20) = 2e-9.
        jitter: Added to the covariance of the draws, as a part of the variances.
    """

    num_newton_steps: int = 5
    num_points: int = 32
    gamma: float = 2.38
    mode_jump_interval: int = 10
    noise: float = 1e-3
    min_mode_share: float = 0.08
    same_mode_distance: float = 1.0
    repeated_mode_log_mass: float = 20.0
    jitter: float = 1e-9


MODES = ModeSettings()


class NormalModes(NamedTuple):
    """Normal approximations at the modes of N targets, as mixtures of ``NUM_MODES`` components,
    and whether the mode of a component is that of an earlier one, shape ``(N, NUM_MODES)``.
    """

    mixture: StudentMixture
    repeated: Tensor


def find_modes(target_of: LogTargetOf, draws: Tensor, log_weights: Tensor) -> NormalModes:
    r"""The modes of each target that Newton steps from some draws lead to.

    Args:
        target_of: Gives the log densities of some of the targets, as a function of points of shape
            ``(point, num * j, latent)``, for any j; row ``a * num + i`` belongs to the i-th of
            them.
        draws: Draws of a proposal, shape ``(draw, N, latent)``.
        log_weights: Their log weights, shape ``(draw, N)``.
    """
    num, draws = draws.shape[1], draws.nan_to_num(0.0, 0.0, 0.0)
    centered = draws - draws.mean(0)
    covariance = torch.einsum("knd,kne->nde", centered, centered) / len(draws)
    variances = covariance.diagonal(dim1=1, dim2=2).clamp(min=1e-12)
    scale = factored(covariance + MODES.jitter * variances.diag_embed())
    starts = _starts(draws, log_weights)
    modes, scales, log_density = (
        x.transpose(0, 1)
        for x in climb(
            target_of, starts, scale.expand(NUM_MODES, num, -1, -1), MODES.num_newton_steps
        )
    )
    log_mass, repeated = _log_masses(modes, scales, log_density)
    share = log_mass.softmax(-1).clamp(min=MODES.min_mode_share)
    log_share = (share / share.sum(1, keepdim=True)).log()
    return NormalModes(StudentMixture(log_share, modes, scales), repeated)


def mixture_around_modes(
    target: LogTarget, modes: NormalModes, generator: Generator, num_steps: int = 80
) -> StudentMixture:
    r"""A mixture of the places around the modes that differential evolution visits.

    Args:
        target: Log densities of points of shape ``(point, N * j, latent)``, for any j; row ``a * N
            + i`` belongs to target i.
        modes: Normal approximations at the modes.
        generator: Source of randomness.
        num_steps: Steps of differential evolution; the second half is used.

    Returns:
        Mixtures of ``NUM_MODES`` components.
    """
    approximation, num = modes.mixture, len(modes.repeated)
    first_points = approximation.draw(MODES.num_points, generator)
    path = differential_evolution(target, first_points, num_steps, generator)
    points = path[num_steps // 2 :].flatten(0, 1)
    # A component whose mode was found before starts at a random one of the points.
    index = torch.randint(len(points), (NUM_MODES, num), generator=generator)
    random_points = points[index, torch.arange(num)].transpose(0, 1)
    means = torch.where(modes.repeated.unsqueeze(-1), random_points, approximation.means)
    equal = torch.full(points.shape[:2], 1 / len(points), dtype=points.dtype)
    start = StudentMixture(approximation.log_weights, means, approximation.scale_trils)
    return fit_student_mixture(points, equal, NUM_MODES, generator, start=start)


def differential_evolution(
    target: LogTarget, starts: Tensor, num_steps: int, generator: Generator
) -> Tensor:
    r"""Points that move by differential evolution, for each target separately.

    Args:
        target: As in :func:`mixture_around_modes`.
        starts: Shape ``(point, N, latent)``, an even number of points.
        num_steps: Number of steps.
        generator: Source of randomness.

    Returns:
        The points after every step, shape ``(step, point, N, latent)``.
    """
    size, (num, num_latent) = len(starts) // 2, starts.shape[1:]
    halves = list(starts.split(size))  # each half moves by differences of points of the other
    log_densities = list(target(starts).split(size))
    noise_scale = MODES.noise * (starts - starts.mean(0)).abs().median(0).values
    path = []
    for step in range(num_steps):
        between_modes = step % MODES.mode_jump_interval == MODES.mode_jump_interval - 1
        gamma = 1.0 if between_modes else MODES.gamma / math.sqrt(2 * num_latent)
        for moving, other in ((0, 1), (1, 0)):
            points, log_density = halves[moving], log_densities[moving]
            first = torch.randint(size, (size, num), generator=generator)
            second = (first + torch.randint(1, size, first.shape, generator=generator)) % size
            difference = _take(halves[other], first) - _take(halves[other], second)
            noise = torch.randn(size, num, num_latent, generator=generator, dtype=points.dtype)
            proposed = points + gamma * difference + noise_scale * noise
            proposed_density = target(proposed)
            log_uniform = torch.rand(size, num, generator=generator, dtype=points.dtype).log()
            accepted = log_uniform < proposed_density - log_density
            log_densities[moving] = torch.where(accepted, proposed_density, log_density)
            halves[moving] = torch.where(accepted.unsqueeze(-1), proposed, points)
        path.append(torch.cat(halves))
    return torch.stack(path)


def _take(points: Tensor, index: Tensor) -> Tensor:
    """Points by an index ``(point, N)``."""
    return points.gather(0, index.unsqueeze(-1).expand(-1, -1, points.shape[-1]))


def _starts(draws: Tensor, log_weights: Tensor) -> Tensor:
    """Starts of the Newton steps, shape ``(NUM_MODES, N, latent)``.

    They are the best draw; the best draws on both sides of the deepest gap in any coordinate,
    where a proposal with two modes is separated; and the best draws at both ends of the
    coordinate that is widest relative to the others, along which a narrow region may extend.
    """
    num_draws, num, _ = draws.shape
    order = draws.argsort(0)
    gap, cut = _deepest_gap(draws.gather(0, order))
    spread = draws.std(0)
    widest = (spread / spread.median(0).values.clamp(min=1e-300)).argmax(1)
    rows = torch.arange(num)
    position = torch.arange(num_draws).unsqueeze(1)
    tenth = num_draws // 10
    by_gap, by_width = order[:, rows, gap], order[:, rows, widest]
    below = position <= cut
    low, high = (x.expand(-1, num) for x in (position < tenth, position >= num_draws - tenth))
    picked = [log_weights.argmax(0)]
    for index, allowed in ((by_gap, below), (by_gap, ~below), (by_width, low), (by_width, high)):
        value = log_weights.gather(0, index).masked_fill(~allowed, -torch.inf)
        # Where all weights are zero, any allowed position is taken.
        fallback = torch.where(allowed, 0.0, -1.0)
        best = torch.where(value.isfinite().any(0), value.argmax(0), fallback.argmax(0))
        picked.append(index.gather(0, best.unsqueeze(0))[0])
    return _take(draws, torch.stack(picked))


def _deepest_gap(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinate whose variance is explained best by two means, one on each side of a cut, and
    the position of the cut among the ordered draws; shape ``(N,)`` each. For a normal distribution
    two means explain 0.64 of the variance.
    """
    num_draws = len(ordered)
    counts = torch.arange(1, num_draws, dtype=ordered.dtype)[:, None, None]
    sums = ordered.cumsum(0)
    between = (sums[:-1] - counts * sums[-1] / num_draws) ** 2 / counts / (num_draws - counts)
    explained, cut = (between / ordered.var(0, correction=0).clamp(min=1e-300)).max(0)
    coordinate = explained.argmax(1)
    return coordinate, cut[torch.arange(len(cut)), coordinate]


def _log_masses(modes: Tensor, scales: Tensor, log_density: Tensor) -> tuple[Tensor, Tensor]:
    """Log masses of the normal approximations, and whether the mode of an earlier start was found
    once more (it counts once); shape ``(N, mode)`` each.
    """
    log_det = scales.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_mass = log_density.nan_to_num(-1e300, -1e300, -1e300) + log_det
    repeated = torch.zeros_like(log_mass, dtype=torch.bool)
    for j in range(1, modes.shape[1]):
        distance = squared_distance(modes[:, j].unsqueeze(0), modes, scales)[0, :, :j]
        repeated[:, j] = (distance < MODES.same_mode_distance).any(1)
    return torch.where(repeated, log_mass - MODES.repeated_mode_log_mass, log_mass), repeated
