r"""Mixtures around the modes of many small targets, found by climbing and walking.

Where a proposal is far too wide, a few of its draws carry all the weight, and their covariance says
nothing. Newton steps from the best of them, on either side of a gap say, lead to the modes; the
curvature there gives normal approximations. From their draws a few walkers per target explore what
the curvature does not show, ridges and tails, by differential evolution: a step of walker a is the
difference of two others,

.. math:: x_a' = x_a + \gamma (x_b - x_c) + \epsilon, \qquad \gamma = 2.38 / \sqrt{2 d},

accepted with the probability of Metropolis. A mixture is fitted to where they have been.

References:
    Ter Braak (2006), A Markov chain Monte Carlo version of the genetic algorithm Differential
    Evolution.
"""

import torch
from torch import Generator, Tensor

from ..numerics.cholesky import factored
from ..numerics.newton_steps import Target, newton
from .importance_weights import normalized_weights
from .student_mixture import StudentMixture, fit_student_mixture, squared_distance

NUM_MODES, NUM_STEPS = 5, 5
NUM_WALKERS = 32  # an even number


def located_mixture(
    target: Target, draws: Tensor, log_weights: Tensor, generator: Generator, num_walked: int = 80
) -> StudentMixture:
    r"""A mixture around the modes of each target.

    Args:
        target: Points of shape ``(point, N * j, latent)``, for any j, to log densities; row ``a * N
            + i`` belongs to target i.
        draws: Of a proposal, shape ``(draw, N, latent)``.
        log_weights: Their log weights, shape ``(draw, N)``.
        generator: Source of randomness.
        num_walked: Steps of the walkers; the second half of them counts.

    Returns:
        ``NUM_MODES`` components.
    """
    num = draws.shape[1]
    centered = draws - draws.mean(0)
    covariance = torch.einsum("knd,kne->nde", centered, centered) / len(draws)
    jitter = 1e-9 * covariance.diagonal(dim1=1, dim2=2).clamp(min=1e-12).diag_embed()
    scale = factored(covariance + jitter)
    starts = _starts(draws, log_weights)
    found = newton(target, starts.flatten(0, 1), scale.repeat(NUM_MODES, 1, 1), NUM_STEPS)
    height, rows = target(found.location.unsqueeze(0))[0], torch.arange(num)
    modes, scales, height = (
        x.unflatten(0, (NUM_MODES, num)).transpose(0, 1)
        for x in (found.location, found.scale_tril, height)
    )
    mass, again = _masses(modes, scales, height)
    share = mass.softmax(-1).clamp(min=0.08)
    around = StudentMixture((share / share.sum(1, keepdim=True)).log(), modes, scales)
    walked = walk(target, around.draw(NUM_WALKERS, generator), num_walked, generator)
    kept = walked[num_walked // 2 :].flatten(0, 1)
    # A component whose mode was found before starts from anywhere the walkers have been.
    anywhere = kept[torch.randint(len(kept), (NUM_MODES, num), generator=generator), rows]
    means = torch.where(again.unsqueeze(-1), anywhere.transpose(0, 1), modes)
    equal = torch.full(kept.shape[:2], 1 / len(kept), dtype=kept.dtype)
    start = StudentMixture(around.log_weights, means, scales)
    return fit_student_mixture(kept, equal, NUM_MODES, generator, start=start)


def walk(target: Target, starts: Tensor, num_steps: int, generator: Generator) -> Tensor:
    r"""Walkers of each target by differential evolution.

    Args:
        target: As of :func:`located_mixture`.
        starts: Shape ``(walker, N, latent)``, an even number of walkers.
        num_steps: Steps.
        generator: Source of randomness.

    Returns:
        Shape ``(step, walker, N, latent)``.
    """
    half, (num, d) = len(starts) // 2, starts.shape[1:]
    here = starts.clone()
    height = target(here)
    small = 1e-3 * (here - here.mean(0)).abs().median(0).values
    steps = []
    for step in range(num_steps):
        jump = 1.0 if step % 10 == 9 else 2.38 / (2 * d) ** 0.5  # now and then between modes
        for mine, others in ((slice(0, half), half), (slice(half, None), 0)):
            first = torch.randint(half, (half, num), generator=generator)
            second = (first + torch.randint(1, half, first.shape, generator=generator)) % half
            x, y = (_pick(here[others : others + half], i) for i in (first, second))
            noise = torch.randn(half, num, d, generator=generator, dtype=here.dtype)
            there = here[mine] + jump * (x - y) + small * noise
            value = target(there)
            chance = torch.rand(half, num, generator=generator, dtype=here.dtype).log()
            accepted = chance < value - height[mine]
            height[mine] = torch.where(accepted, value, height[mine])
            here[mine] = torch.where(accepted.unsqueeze(-1), there, here[mine])
        steps.append(here.clone())
    return torch.stack(steps)


def _pick(walkers: Tensor, index: Tensor) -> Tensor:
    return walkers.gather(0, index.unsqueeze(-1).expand(-1, -1, walkers.shape[-1]))


def tempered_weights(log_weights: Tensor, wanted: float) -> Tensor:
    """Normalised weights, flattened by a power below one until ``wanted`` draws are effective."""
    power = torch.ones(log_weights.shape[1], dtype=log_weights.dtype)
    weights = normalized_weights(log_weights)
    for _ in range(30):
        few = 1 / weights.pow(2).sum(0) < min(wanted, 0.2 * len(log_weights))
        if not bool(few.any()):
            break
        power = torch.where(few, power * 0.7, power)
        weights = normalized_weights(_scaled(log_weights, power))
    return weights


def _scaled(log_weights: Tensor, power: Tensor) -> Tensor:
    return torch.where(log_weights == -torch.inf, log_weights, log_weights * power)


def _starts(draws: Tensor, log_weights: Tensor) -> Tensor:
    """The best draw; the best ones on either side of the deepest gap in any coordinate, where a
    proposal with two modes parts; and the best ones at either end of the coordinate that is widest
    for its kind, along which a ridge may run. Shape ``(NUM_MODES, N, latent)``.
    """
    num_draws, num, _ = draws.shape
    order = draws.argsort(0)
    ordered = draws.gather(0, order)
    # Explained by two means, for a cut behind every draw: 0.64 at most for a normal distribution.
    counts = torch.arange(1, num_draws, dtype=draws.dtype)[:, None, None]
    sums = ordered.cumsum(0)
    between = (sums[:-1] - counts * sums[-1] / num_draws) ** 2 / counts / (num_draws - counts)
    explained, cut = (between / ordered.var(0, correction=0).clamp(min=1e-300)).max(0)
    spread = draws.std(0)
    widest = (spread / spread.median(0).values.clamp(min=1e-300)).argmax(1)
    parted, rows = explained.argmax(1), torch.arange(num)
    place = torch.arange(num_draws).unsqueeze(1)
    tenth = num_draws // 10
    first, second = order[:, rows, parted], order[:, rows, widest]
    left = place <= cut[rows, parted]
    low, high = (x.expand(-1, num) for x in (place < tenth, place >= num_draws - tenth))
    picked = [log_weights.argmax(0)]
    for index, allowed in ((first, left), (first, ~left), (second, low), (second, high)):
        value = log_weights.gather(0, index).masked_fill(~allowed, -torch.inf)
        tie = torch.where(allowed, 0.0, -1.0)  # a place that is allowed, where all weights are zero
        best = torch.where(value.isfinite().any(0), value.argmax(0), tie.argmax(0))
        picked.append(index.gather(0, best.unsqueeze(0))[0])
    return _pick(draws, torch.stack(picked))


def _masses(modes: Tensor, scales: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """Log masses of the normal approximations, and whether a mode was found before (it counts
    once); shape ``(N, mode)`` each.
    """
    log_det = scales.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    mass = height.nan_to_num(-1e300, -1e300, -1e300) + log_det
    again = torch.zeros_like(mass, dtype=torch.bool)
    for j in range(1, modes.shape[1]):
        near = squared_distance(modes[:, j].unsqueeze(0), modes, scales)[0, :, :j] < 1.0
        again[:, j] = near.any(1)
    return torch.where(again, mass - 20.0, mass), again
