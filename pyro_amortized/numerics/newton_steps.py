r"""Newton steps without derivatives, for many small problems at once.

Around a location m with scale L (lower triangular) the log density is evaluated at the points
:math:`m + L s` of a stencil: the centre, a step of one forwards and backwards in every direction,
and one in every pair of directions. Differences give the gradient g and the Hessian H in the
coordinates s, and the step

.. math:: m \leftarrow m + L\, |{-H}|^{-1} g, \qquad L L^\top \leftarrow L\, |{-H}|^{-1} L^\top

with the absolute eigenvalues of -H, limited to a range. Along the step the best of several lengths
is taken. The step is exact for a Gaussian, whatever the first scale is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .cholesky import factored
from .gaussians import Gaussians

LogTarget = Callable[[Tensor], Tensor]
LogTargetOf = Callable[[Tensor], LogTarget]


@dataclass(frozen=True)
class NewtonSettings:
    r"""Limits of the steps.

    Args:
        min_precision: Smallest curvature that is used, relative to the scale before the step: one
            step enlarges a scale at most thirty times.
        max_precision: Largest curvature that is used: one step narrows a scale at most a thousand
            times.
        lengths: Lengths that are tried along a step; several are needed because the log density
            is not quadratic far from its maximum.
        log_density_floor: Log density relative to the centre that stands for a value that is not
            finite.
        lowest: Log density that stands for that of a centre that is not finite; lower than any.
        max_relative: Largest absolute log density relative to the centre; differences and products
            of larger ones have no digits left.
        tail: Probability outside which no quasi-random point lies: the quantile of 0 is infinite.
        jitter: Addition to the covariance of a scale, relative to its trace, so that rounding does
            not make it indefinite.
        max_steps: Largest number of steps while the log density rises.
        min_rise: Rise of the log density in a step below which the mode is reached.
        min_own_rise: The same for each of several starts whose modes are all wanted. With ten times
            as much some of them ended on a slope, two standard deviations from their mode.
        same_place: Squared distance of two starts, in the scales of both, below which they are at
            the same place: half a standard deviation. From there steps end at the same mode.
        same_height: Difference of their log densities below which they are, too.
    """

    min_precision: float = 1e-3
    max_precision: float = 1e6
    lengths: tuple[float, ...] = (2.0, 1.0, 0.5, 0.25, 0.1, 0.03)
    log_density_floor: float = -100.0
    lowest: float = -1e300
    max_relative: float = 1e6
    tail: float = 1e-6
    jitter: float = 1e-12
    max_steps: int = 30
    min_rise: float = 0.1
    min_own_rise: float = 1e-3
    same_place: float = 0.25
    same_height: float = 1.0


DEFAULTS = NewtonSettings()


class Curved(NamedTuple):
    r"""The result of the steps for N problems of d dimensions.

    ``location`` has shape ``(N, d)`` and ``scale_tril`` ``(N, d, d)``. ``shape``, of shape
    ``(N, point)``, holds the log densities in the stencil around the location, relative to the
    centre, minus those of the Gaussian. It is zero for a Gaussian.
    """

    location: Tensor
    scale_tril: Tensor
    shape: Tensor


def stencil(num_dims: int) -> Tensor:
    """Points s, shape ``(point, num_dims)``: centre, forwards, backwards, pairs."""
    eye = torch.eye(num_dims, dtype=torch.float64)
    row, column = torch.tril_indices(num_dims, num_dims, -1)
    return torch.cat([0 * eye[:1], eye, -eye, eye[row] + eye[column]])


def newton(target: LogTarget, location: Tensor, scale_tril: Tensor, num_steps: int) -> Curved:
    r"""Take steps towards the maximum of each log density.

    Args:
        target: Maps points of shape ``(point, N, d)`` to log densities ``(point, N)``; a value
            that is not finite counts as a very low one.
        location: First location, shape ``(N, d)``.
        scale_tril: First scale, shape ``(N, d, d)``.
        num_steps: Number of steps. Each step evaluates the stencil and the lengths, and the
            stencil is evaluated once more at the end.

    Example:
        >>> mean = torch.tensor([[3.0, -1.0]]).double()
        >>> start = torch.zeros(1, 2).double(), 5 * torch.eye(2).double().unsqueeze(0)
        >>> result = newton(lambda x: -2 * (x - mean).pow(2).sum(-1), *start, num_steps=1)
        >>> result.location, result.scale_tril.diagonal(dim1=1, dim2=2)
        (tensor([[ 3., -1.]], dtype=torch.float64), tensor([[0.5000, 0.5000]], dtype=torch.float64))
    """
    for _ in range(num_steps):
        location, scale_tril, _ = newton_step(target, location, scale_tril)
    points = stencil(location.shape[-1]).to(location)
    relative = _evaluate(target, points, location, scale_tril)[1]
    shape = relative[1:] + 0.5 * points[1:].pow(2).sum(-1, keepdim=True)
    return Curved(location, scale_tril, shape.T)


def climb(
    target_of: LogTargetOf, starts: Tensor, scale_trils: Tensor, num_steps: int, merge: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Steps from several starts of each problem, until its log density has ceased to rise.

    Args:
        target_of: Gives the log densities of some of the problems, which may be named repeatedly,
            as a function of points of shape ``(point, num * j, d)``, for any j; row ``a * num + i``
            belongs to the i-th of them.
        starts: First locations, shape ``(start, N, d)``.
        scale_trils: First scales, shape ``(start, N, d, d)``.
        num_steps: Smallest number of steps. Problems whose log density still rises get further
            ones. Of 1,000 posteriors a hundredth as wide as the first scale, three were 20,000
            below their mode after five steps.
        merge: A start that has come to the place of a better one of the same problem takes no
            further steps and ends where that one ends; the others take steps until they no longer
            rise themselves. Without it, all take steps until the highest of their problem no longer
            rises. Merged starts end at the modes less exactly: fits from there began farther from
            the maximum.

    Returns:
        Locations and scales, shaped as the first ones, and log densities, shape ``(start, N)``.
    """
    location, scale = starts.clone(), scale_trils.clone()
    density = location.new_full(starts.shape[:2], -torch.inf)
    every = torch.arange(len(starts)).unsqueeze(1)
    leaders = every.expand(starts.shape[:2])
    rises = torch.ones(starts.shape[:2], dtype=torch.bool)
    for step in range(max(num_steps, DEFAULTS.max_steps)):
        active, before = (leaders == every) & rises, density.clone()
        start, problem = active.nonzero(as_tuple=True)
        rows = active.any(0).nonzero()[:, 0]
        target = target_of(rows if bool(active[:, rows].all()) else problem)
        moved = newton_step(target, location[start, problem], scale[start, problem])
        for x, value in zip((location, scale, density), moved, strict=True):
            x[start, problem] = value
        if merge:
            leaders = _leaders(location, scale, density, leaders == every).gather(0, leaders)
        if step + 1 >= num_steps:
            rises = rises & _still_rises(before, density, each=merge)
            if not bool((rises & (leaders == every)).any()):
                break
    problems = torch.arange(starts.shape[1])
    return location[leaders, problems], scale[leaders, problems], density[leaders, problems]


def is_highest(location: Tensor, scale: Tensor, density: Tensor) -> Tensor:
    """Which results of :func:`climb` are the highest at their place, shape ``(start, N)``."""
    every = torch.arange(len(location)).unsqueeze(1)
    active = torch.ones(density.shape, dtype=torch.bool)
    return _leaders(location, scale, density, active) == every


def _still_rises(before: Tensor, after: Tensor, each: bool) -> Tensor:
    """Whether log densities ``(start, N)`` have risen, each by itself or the highest ones."""
    if each:
        return after - before > DEFAULTS.min_own_rise
    highest = after.amax(0) - before.amax(0) > DEFAULTS.min_rise
    return highest.expand_as(after)


def _leaders(location: Tensor, scale: Tensor, density: Tensor, active: Tensor) -> Tensor:
    """The best of the active starts that are at the same place as a start, shape ``(start, N)``."""
    apart = (location.unsqueeze(1) - location).unsqueeze(-1)  # (start, other, N, d, 1)
    white = torch.linalg.solve_triangular(
        scale.expand(len(scale), -1, -1, -1, -1), apart, upper=False
    )
    distance = white.square().sum((-2, -1))
    is_near = distance.maximum(distance.transpose(0, 1)) < DEFAULTS.same_place
    height = density.clamp(min=DEFAULTS.lowest)
    is_near = is_near & ((height.unsqueeze(1) - height).abs() < DEFAULTS.same_height) & active
    itself = torch.eye(len(scale), dtype=torch.bool).unsqueeze(-1)
    leaders = torch.where(is_near | itself, height, -torch.inf).argmax(1)
    for _ in range(len(scale)):  # the leader of a start may follow another one
        leaders = leaders.gather(0, leaders)
    return leaders


def newton_step(
    target: LogTarget, location: Tensor, scale_tril: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""One step of :func:`newton`.

    Returns:
        Location, scale, and the log density at the location, shape ``(N,)``; minus infinity where
        it is not finite.
    """
    points = stencil(location.shape[-1]).to(location)
    lengths = torch.tensor(DEFAULTS.lengths).to(location)
    centre, relative = _evaluate(target, points, location, scale_tril)
    move, narrowed = _step(relative, scale_tril)
    # After many steps on a function without curvature a scale may overflow; it then stays.
    finite = narrowed.isfinite().flatten(1).all(1) & move.isfinite().all(1)
    move = move.masked_fill(~finite.unsqueeze(-1), 0.0)
    scale_tril = torch.where(finite[:, None, None], narrowed, scale_tril)
    trials = target(location + lengths[:, None, None] * move)
    trials = torch.where(trials.isfinite(), trials, -torch.inf)
    value, best = trials.max(0)
    is_better = value > centre
    length = torch.where(is_better, lengths[best], 0.0)
    location = location + length.unsqueeze(-1) * move
    log_density = torch.where(is_better, value, centre)
    log_density = log_density.masked_fill(log_density <= DEFAULTS.lowest, -torch.inf)
    return location, scale_tril, log_density


def best_of(
    target: LogTarget, normal: Gaussians, num: int, num_best: int, apart: float
) -> tuple[Tensor, Tensor]:
    r"""The best of some quasi-random points of normal distributions, and a scale of their distance.

    Args:
        target: As in :func:`newton`.
        normal: The distributions, batch shape ``(N,)``.
        num: Number of points.
        num_best: Number of points that are kept.
        apart: Smallest distance of those that are kept, in standard deviations, as long as there
            are such.

    Returns:
        The points, best first, shape ``(num_best, N, d)``, and the scales of the distributions
        divided by the d-th root of ``num``, shape ``(num_best, N, d, d)``.
    """
    d = normal.loc.shape[-1]
    unit = torch.quasirandom.SobolEngine(d, scramble=True, seed=0).draw(num, dtype=torch.float64)
    points = torch.special.ndtri(unit.clamp(DEFAULTS.tail, 1 - DEFAULTS.tail)).to(normal.loc)
    points[0] = 0.0
    candidates = normal.loc + torch.einsum("nij,kj->kni", normal.scale_tril, points)
    values = target(candidates)
    values = torch.where(values.isfinite(), values, DEFAULTS.lowest)
    is_near, best = torch.cdist(points, points) < apart, []
    for _ in range(num_best):
        best.append(values.argmax(0))
        values = values.scatter(0, best[-1].unsqueeze(0), -torch.inf)
        values = torch.where(is_near[best[-1]].T, values.clamp(max=DEFAULTS.lowest), values)
    chosen = torch.stack(best).unsqueeze(-1).expand(-1, -1, d)
    scales = (normal.scale_tril * num ** (-1 / d)).expand(num_best, *normal.scale_tril.shape)
    return candidates.gather(0, chosen), scales


def _evaluate(
    target: LogTarget, points: Tensor, location: Tensor, scale_tril: Tensor
) -> tuple[Tensor, Tensor]:
    """Log density in the centre, and in all points relative to it."""
    values = target(location + torch.einsum("nij,kj->kni", scale_tril, points))
    floor, most = DEFAULTS.log_density_floor, DEFAULTS.max_relative
    centre = torch.where(values[0].isfinite(), values[0], DEFAULTS.lowest)
    relative = (values - centre).nan_to_num(floor, -floor, floor).clamp(-most, most)
    return centre, relative


def _step(relative: Tensor, scale_tril: Tensor) -> tuple[Tensor, Tensor]:
    """The step of each problem, shape ``(N, d)``, and the scale that its curvature gives."""
    d = scale_tril.shape[-1]
    forwards, backwards, pairs = relative[1:].split([d, d, len(relative) - 1 - 2 * d])
    gradient = (forwards - backwards).T / 2
    hessian = torch.diag_embed((forwards + backwards).T)
    row, column = torch.tril_indices(d, d, -1)
    mixed = (pairs - forwards[row] - forwards[column]).T
    hessian[:, row, column], hessian[:, column, row] = mixed, mixed
    precision, axes = torch.linalg.eigh(-hessian)
    precision = precision.abs().clamp(DEFAULTS.min_precision, DEFAULTS.max_precision)
    along = (axes.transpose(1, 2) @ gradient.unsqueeze(-1)).squeeze(-1) / precision
    move = (axes @ along.unsqueeze(-1)).squeeze(-1)
    root = scale_tril @ axes / precision.sqrt().unsqueeze(1)
    trace = root.pow(2).sum((1, 2), keepdim=True)
    jitter = DEFAULTS.jitter * trace * torch.eye(d).to(root)
    step = (scale_tril @ move.unsqueeze(-1)).squeeze(-1)
    return step, factored(root @ root.transpose(1, 2) + jitter)
