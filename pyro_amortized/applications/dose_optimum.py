r"""The best amount of a continuous range, on common draws.

For a target with one end, the amounts :math:`d_k` at which the draws reach it are sorted: the dose
at which a metric is at least *low* with probability p is their p-quantile, and that at which it is
at most *high* with probability p their (1 - p)-quantile. For a range, the dose with the largest
probability is taken; where doses differ by less than two Monte Carlo errors of their difference,
the one nearest to the mean of :math:`(\log d_k^{low} + \log d_k^{high}) / 2`. An expected loss is
minimised. Monte Carlo errors are those of weighted means, carried over to the dose by the slope.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .dose_criterion import DoseCriterion
from .dose_response import DoseResponse
from .draw_weights import DrawWeights
from .targets import Target


@dataclass(frozen=True)
class OptimumSettings:
    r"""How an optimum is found.

    Args:
        num_grid: Amounts of the grid on which probabilities and losses are compared.
        zoom: Times that the grid of a loss is narrowed around its minimum.
        num_errors: Monte Carlo errors of the difference of two probabilities below which they
            count as equal. With one, a single draw of the tail decides.
        max_values: Values of the metric on the grid that are held at once.
        min_width: Smallest step in the logarithm of the amount of the differences that give the
            error of the smallest loss; with a smaller one they are rounding errors.
    """

    num_grid: int = 121
    zoom: int = 3
    num_errors: float = 2.0
    max_values: int = 20_000_000
    min_width: float = 1e-3


SETTINGS = OptimumSettings()


@dataclass(frozen=True, eq=False)
class DoseOptimum:
    r"""The best dose of every patient.

    Args:
        log_amount: Its logarithm, shape ``(individual,)``.
        error: Monte Carlo standard error of ``log_amount``.
        is_inside: Whether it lies inside the range, not at one of its ends.
    """

    log_amount: Tensor
    error: Tensor
    is_inside: Tensor


def optimum(response: DoseResponse, weights: DrawWeights, criterion: DoseCriterion) -> DoseOptimum:
    r"""The best amount of every patient between the ends of a response.

    Args:
        response: The metric as a function of the dose.
        weights: Weights of the draws.
        criterion: What is optimised.
    """
    if criterion.loss is not None:
        return _by_patients(response, weights, lambda r, w: _smallest_loss(r, w, criterion))
    if criterion.is_range:
        return _most_probable(response, weights, criterion.target)
    assert criterion.probability is not None
    return _one_end(response, weights, criterion.target, criterion.probability)


def _by_patients(
    response: DoseResponse,
    weights: DrawWeights,
    function: Callable[[DoseResponse, DrawWeights], DoseOptimum],
) -> DoseOptimum:
    """A function of some patients at a time, which limits memory."""
    num_draws, num = weights.values.shape
    size = max(1, SETTINGS.max_values // (SETTINGS.num_grid * num_draws))
    parts = [
        function(response.some(slice(i, i + size)), weights.some(slice(i, i + size)))
        for i in range(0, num, size)
    ]
    names = ("log_amount", "error", "is_inside")
    return DoseOptimum(*(torch.cat([getattr(x, name) for x in parts]) for name in names))


def _one_end(
    response: DoseResponse, weights: DrawWeights, target: Target, probability: float
) -> DoseOptimum:
    """The dose at which a target with one end is reached with a probability."""
    is_low, increasing = target.low is not None, response.is_increasing
    level = target.low if target.low is not None else target.high
    assert level is not None
    if not increasing:  # the metric falls with the dose: its negative increases
        response = DoseResponse(response.log_amounts, -response.metric)
        level = -level
    reached = response.reached_at(level)
    low, high = response.log_amounts[0], response.log_amounts[-1]
    share = probability if is_low == increasing else 1 - probability
    w = weights.values
    error_of_share = (share * (1 - share) * w.square().sum(0)).sqrt()
    if weights.groups is not None:
        ends = _smooth_quantiles(reached, w, torch.full_like(error_of_share, share).unsqueeze(0))
        error_of_share = error_of_share * weights.inflation((reached <= ends).double())
    shares = (share + error_of_share * torch.tensor([[0.0], [-1.0], [1.0]])).clamp(0.0, 1.0)
    dose, lower, upper = _smooth_quantiles(reached, w, shares)
    error = ((upper - lower) / 2).nan_to_num(torch.inf, torch.inf)
    inside = dose.isfinite() & (dose > low) & (dose < high)
    return DoseOptimum(torch.minimum(torch.maximum(dose, low), high), error, inside)


def _smooth_quantiles(values: Tensor, weights: Tensor, shares: Tensor) -> Tensor:
    """Quantiles of weighted values with linear interpolation between their mid-ranks, shape
    ``(level, individual)``; infinite values are among the ends.
    """
    ordered, order = values.sort(0)
    w = weights.gather(0, order)
    middle = w.cumsum(0) - w / 2
    place = torch.searchsorted(middle.T.contiguous(), shares.T.contiguous()).T
    place = place.clamp(1, len(values) - 1)
    before, after = middle.gather(0, place - 1), middle.gather(0, place)
    low, high = ordered.gather(0, place - 1), ordered.gather(0, place)
    part = ((shares - before) / (after - before).clamp(min=1e-300)).clamp(0.0, 1.0)
    mixed = low + part * (high - low)
    return torch.where(low.isfinite() & high.isfinite(), mixed, torch.where(part < 0.5, low, high))


def _grid(low: Tensor, high: Tensor) -> Tensor:
    """Equally spaced log amounts between ends ``(individual,)``, shape ``(grid, individual)``."""
    steps = torch.linspace(0, 1, SETTINGS.num_grid, dtype=torch.float64).unsqueeze(1)
    return low + steps * (high - low)


class _Below:
    """Weights of the draws whose thresholds lie below an amount, and their squares.

    Args:
        thresholds: Shape ``(draw, individual)``.
        weights: Normalised weights, same shape.
    """

    def __init__(self, thresholds: Tensor, weights: Tensor) -> None:
        ordered, order = thresholds.sort(0)
        sorted_weights = weights.gather(0, order)
        zero = torch.zeros_like(weights[:1])
        self.ordered = ordered.T.contiguous()
        self.sums = torch.cat([zero, sorted_weights.cumsum(0)])
        self.squares = torch.cat([zero, sorted_weights.square().cumsum(0)])

    def at(self, amounts: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of weights and of their squares for amounts ``(grid, individual)``, same shape."""
        place = torch.searchsorted(self.ordered, amounts.T.contiguous(), right=True).T
        return self.sums.gather(0, place), self.squares.gather(0, place)


def _most_probable(response: DoseResponse, weights: DrawWeights, target: Target) -> DoseOptimum:
    """The dose with the largest probability of the range.

    A draw is in the range from the amount at which it reaches one end until it reaches the other,
    so the probability is a difference of two distribution functions.
    """
    first, last = response.log_amounts[0], response.log_amounts[-1]
    assert target.low is not None
    assert target.high is not None
    sign = 1.0 if response.is_increasing else -1.0
    signed = DoseResponse(response.log_amounts, sign * response.metric)
    enters, leaves = (signed.reached_at(x) for x in sorted((sign * target.low, sign * target.high)))
    grid = _grid(first, last)
    entered, entered2 = _Below(enters, weights.values).at(grid)
    left, left2 = _Below(leaves, weights.values).at(grid)
    share = entered - left
    best = share.argmax(0).unsqueeze(0)
    # Draws that are in the range at one of two amounts alone: their number gives the error of the
    # difference of the probabilities.
    changed = sum((x - x.gather(0, best)).abs() for x in (entered2, left2))
    difference = share.gather(0, best) - share
    at_best = grid.gather(0, best)
    inflation = weights.inflation(((enters <= at_best) & (leaves > at_best)).double())
    is_similar = difference <= SETTINGS.num_errors * inflation * torch.as_tensor(changed).sqrt()
    middle = torch.stack([torch.minimum(torch.maximum(x, first), last) for x in (enters, leaves)])
    center, center_error = weights.mean_error(middle.mean(0))
    distance = (grid - center).abs().masked_fill(~is_similar, torch.inf)
    dose = grid.gather(0, distance.argmin(0).unsqueeze(0))[0]
    step = grid[1] - grid[0]
    dose = torch.where((dose - center).abs() <= step, center, dose)
    is_inside = (dose > first + step / 2) & (dose < last - step / 2)
    return DoseOptimum(dose, center_error, is_inside & (share.amax(0) > 0))


def _smallest_loss(
    response: DoseResponse, weights: DrawWeights, criterion: DoseCriterion
) -> DoseOptimum:
    """The dose with the smallest expected loss."""
    first, last = response.log_amounts[0], response.log_amounts[-1]
    low, high = first, last
    for _ in range(SETTINGS.zoom):
        grid = _grid(low, high)
        expected = (weights.values * criterion.losses(response.at(grid))).sum(1)
        best = expected.argmin(0).unsqueeze(0)
        step = grid[1] - grid[0]
        dose = grid.gather(0, best)[0]
        low, high = torch.maximum(dose - 2 * step, first), torch.minimum(dose + 2 * step, last)
    inside = (dose > first + step) & (dose < last - step)
    width = ((last - first) / SETTINGS.num_grid).expand_as(dose).clamp(min=SETTINGS.min_width)
    around = torch.stack([dose - width, dose, dose + width])
    losses = criterion.losses(response.at(around))
    _, slope_error = weights.mean_error((losses[2] - losses[0]) / (2 * width))
    curvature = (weights.values * (losses[2] - 2 * losses[1] + losses[0])).sum(0) / width.square()
    error = slope_error / curvature.clamp(min=1e-300)
    return DoseOptimum(dose, torch.where(curvature > 0, error, torch.inf), inside)
