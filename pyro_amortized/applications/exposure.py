r"""Exposure metrics: AUC, largest and smallest concentration, time above a threshold.

The metrics are integrals and extremes of the prediction over a window. The window is divided at
the doses and at the ends of infusions, where the prediction has kinks or jumps, and every part
further, finely behind a dose. In each panel the model is evaluated at the nodes of Clenshaw and
Curtis, which include both ends. AUC is the quadrature of the panels,

.. math:: \mathrm{AUC} = \sum_p \frac{b_p - a_p}{2} \sum_j w_j f(t_{pj}) ,

which is exact for polynomials of degree 6 in each panel. A largest value between nodes is that of
the polynomial through the nodes of its panel. A threshold is crossed where the exponential (or, at
values that are not positive, the line) through two neighbours crosses it.

References:
    Clenshaw and Curtis (1960), A method for numerical integration on an automatic computer.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from ..errors import SettingError
from ..nlme.regimens import Regimen
from ..runtime.arguments import check_number


@dataclass(frozen=True)
class PanelSettings:
    r"""How a window is divided.

    Args:
        num_nodes: Nodes of a panel, both ends included.
        fractions: Ends of the panels between two doses, as parts of the time between them. For
            absorption and elimination rates from 0.02 to 100 per dosing interval the error of AUC
            is below 1e-4. A lag time is a kink inside a panel: with lags of 0.3 to 1.5 h in 12 h
            the error was 1e-4 to 5e-3.
        long_fractions: The same for the time after the last dose and for single doses, whose length
            says little about the rates.
        long: A part is long that is this many times as long as the dosing interval.
        max_divided: Number of parts of a window beyond which only the last one is divided so ...
        many_fractions: ... and the others are divided in this way, with an error of AUC below 1e-3.
        num_fine: Points of a panel at which the polynomial through its nodes is evaluated.
        max_overshoot: Largest relative excess of the polynomial over the nodes that is no overshoot
            at a kink.
        rounding: Relative excess of the polynomial that is rounding: a constant has its peak at the
            begin.
        gap: A panel ends this part of its length before the next dose, whose effect it lacks.
    """

    num_nodes: int = 7
    fractions: tuple[float, ...] = (1 / 48, 1 / 12, 1 / 3, 1.0)
    long_fractions: tuple[float, ...] = tuple(4.0**-k for k in range(7, -1, -1))
    long: float = 1.5
    max_divided: int = 30
    many_fractions: tuple[float, ...] = (1 / 8, 1.0)
    num_fine: int = 49
    max_overshoot: float = 0.1
    rounding: float = 1e-9
    gap: float = 1e-7


PANELS = PanelSettings()


@dataclass(frozen=True)
class Exposure:
    r"""Which exposure is computed: the window, and the threshold of the time above.

    Args:
        start: Begin of the window, counted from the begin of the regimen. Default: the last dose.
        end: End of the window. Default: one dosing interval after the last dose.
        above: Threshold of the time above it, in the unit of the prediction.
        steady_state: Repeat the doses of the last interval for ever, and compute the exposure over
            one interval; ``start`` and ``end`` are then counted from its first dose.

    Raises:
        SettingError: The window is empty.

    Example:
        >>> Exposure(start=0.0, end=24.0, above=5.0)
        Exposure(start=0.0, end=24.0, above=5.0, steady_state=False)
    """

    start: float | None = None
    end: float | None = None
    above: float | None = None
    steady_state: bool = False

    def __post_init__(self) -> None:
        for name in ("start", "end", "above"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, -np.inf)
        if self.start is not None and self.end is not None:
            _check_window(self.start, self.end)

    def window(self, regimen: Regimen, last: float | None = None) -> tuple[float, float]:
        r"""Begin and end of the window under a regimen.

        Args:
            regimen: The regimen.
            last: End for a single dose without an interval. Default: there is none.

        Raises:
            SettingError: The regimen has no dosing interval, and no end is given.
        """
        default: tuple[float, float | None] = (regimen.last, regimen.end)
        if self.steady_state:
            default = (0.0, regimen.interval)
        low = default[0] if self.start is None else float(self.start)
        high = default[1] if self.end is None else float(self.end)
        if high is None and last is not None and last > low:
            high = last
        if high is None:
            raise SettingError(
                f"A single dose ({regimen.label}) has no dosing interval that its exposure could "
                "be computed over.",
                "the end of the window.",
                "pass the end, for example `Exposure(start=0, end=24)`, `interval=` to "
                "`nlme.regimen`, or `times=` to `simulate`.",
            )
        _check_window(low, high)
        return low, high


def _check_window(low: float, high: float) -> None:
    """Raise if the end of a window is not after its begin."""
    if not high > low:
        raise SettingError(
            f"The window goes from {low:g} to {high:g}.",
            "an end after the start.",
            "correct `start=` and `end=`.",
        )


@dataclass(frozen=True, eq=False)
class Panels:
    r"""A window, divided into panels.

    Args:
        low: Begin of each panel, shape ``(panel,)``.
        high: End of each panel, same shape.
    """

    low: Tensor
    high: Tensor

    @cached_property
    def nodes(self) -> Tensor:
        """Times of the nodes, in increasing order, shape ``(panel * node,)``."""
        unit = unit_nodes(PANELS.num_nodes)
        unit[0], unit[-1] = 0.0, 1.0 - PANELS.gap
        return (self.low.unsqueeze(1) + (self.high - self.low).unsqueeze(1) * unit).flatten()

    def _by_panel(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Times ``(panel, node)`` and values ``(*, panel, node)``."""
        shape = (len(self.low), PANELS.num_nodes)
        return self.nodes.reshape(shape), values.reshape(*values.shape[:-1], *shape)

    def area(self, values: Tensor) -> Tensor:
        """Integral of values at the nodes, shape ``(*,)``."""
        _, by_panel = self._by_panel(values)
        weights = quadrature_weights(PANELS.num_nodes)
        return ((by_panel @ weights) * (self.high - self.low)).sum(-1)

    def peak(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Largest value and its time, shape ``(*,)`` each."""
        times, by_panel = self._by_panel(values)
        panel = by_panel.amax(-1).argmax(-1, keepdim=True)
        index = panel.unsqueeze(-1).expand(*panel.shape, PANELS.num_nodes)
        y = by_panel.gather(-2, index).squeeze(-2)
        largest, node = y.max(-1)
        time = times[panel.squeeze(-1)].gather(-1, node.unsqueeze(-1)).squeeze(-1)
        shares, matrix = fine_interpolation(PANELS.num_nodes)
        between, place = (y @ matrix).max(-1)
        # At a kink (a lag time) the polynomial overshoots; the nodes are then the better guess.
        is_higher = between - largest > PANELS.rounding * largest.abs()
        better = is_higher & (between < largest + PANELS.max_overshoot * largest.abs())
        low, length = self.low[panel.squeeze(-1)], (self.high - self.low)[panel.squeeze(-1)]
        return torch.where(better, between, largest), torch.where(
            better, low + shares[place] * length, time
        )

    def time_above(self, values: Tensor, threshold: float) -> Tensor:
        """Length of the time with values above a threshold, shape ``(*,)``."""
        times, by_panel = self._by_panel(values)
        first, second = by_panel[..., :-1], by_panel[..., 1:]
        positive = (first > 0) & (second > 0) & (threshold > 0)
        a, b = (torch.where(positive, x.clamp(min=1e-300).log(), x) for x in (first, second))
        log_threshold = np.log(threshold) if threshold > 0 else 0.0
        level = torch.where(positive, log_threshold, threshold)
        crossing = ((level - a) / torch.where(a == b, 1.0, b - a)).clamp(0.0, 1.0)
        begins_above, ends_above = first > threshold, second > threshold
        falling = torch.where(begins_above & ~ends_above, crossing, 0.0)
        rising = torch.where(~begins_above & ends_above, 1.0 - crossing, 0.0)
        share = torch.where(begins_above & ends_above, 1.0, falling + rising)
        return (share * times.diff(dim=-1)).sum((-1, -2)) / (1.0 - PANELS.gap)

    def metrics(self, values: Tensor, above: float | None) -> dict[str, Tensor]:
        """All metrics of values at the nodes, shape ``(*,)`` each."""
        area = self.area(values)
        largest, time = self.peak(values)
        result = {
            "auc": area,
            "average": area / float(self.high[-1] - self.low[0]),
            "cmax": largest,
            "tmax": time - float(self.low[0]),
            "cmin": values.amin(-1),
            "trough": values[..., -1],
        }
        if above is not None:
            result["time_above"] = self.time_above(values, above)
        return result


def unit_nodes(num_nodes: int) -> Tensor:
    """Nodes of Clenshaw and Curtis between 0 and 1, shape ``(node,)``."""
    return (1 - torch.cos(torch.linspace(0, torch.pi, num_nodes, dtype=torch.float64))) / 2


@lru_cache
def fine_interpolation(num_nodes: int) -> tuple[Tensor, Tensor]:
    """Points between 0 and 1, shape ``(fine,)``, and the matrix that gives the values there of the
    polynomial through the nodes, shape ``(node, fine)``.
    """
    points = torch.linspace(0, 1, PANELS.num_fine, dtype=torch.float64)
    basis = np.polynomial.chebyshev.chebvander
    at_nodes = basis(2 * unit_nodes(num_nodes).numpy() - 1, num_nodes - 1)
    at_points = basis(2 * points.numpy() - 1, num_nodes - 1)
    return points, torch.as_tensor(np.linalg.solve(at_nodes.T, at_points.T))


def quadrature_weights(num_nodes: int) -> Tensor:
    """Weights of Clenshaw and Curtis on an interval of length 1, which integrate all polynomials
    through the nodes, shape ``(node,)``.

    Example:
        >>> quadrature_weights(3)
        tensor([0.1667, 0.6667, 0.1667], dtype=torch.float64)
    """
    nodes = -np.cos(np.linspace(0, np.pi, num_nodes))
    powers = np.polynomial.chebyshev.chebvander(nodes, num_nodes - 1)
    degree = np.arange(num_nodes)
    with np.errstate(divide="ignore"):
        integrals = np.where(degree % 2 == 0, 2.0 / (1.0 - degree.astype(float) ** 2), 0.0)
    return torch.as_tensor(np.linalg.solve(powers.T, integrals) / 2)


def panels(window: tuple[float, float], regimen: Regimen) -> Panels:
    """The panels of a window under a regimen."""
    low, high = window
    ends = [t + d for t, d in zip(regimen.times, regimen.durations, strict=True)]
    for t, d, steady in zip(regimen.times, regimen.durations, regimen.steady_state, strict=True):
        if steady and d > 0 and regimen.interval is not None:
            # Infusions at steady state that began before.
            past = range(1, math.ceil(d / regimen.interval) + 1)
            ends += [t + d - k * regimen.interval for k in past]
    inner = {t for t in (*regimen.times, *ends) if low < t < high}
    points = torch.tensor(sorted({low, high} | inner), dtype=torch.float64)
    num = len(points) - 1
    is_long = points.diff() > PANELS.long * (regimen.interval or 0.0)
    edges = [points[:1]]
    for j in range(num):
        fractions = PANELS.long_fractions if bool(is_long[j]) else PANELS.fractions
        if num >= PANELS.max_divided and j < num - 1:
            fractions = PANELS.many_fractions
        part = torch.tensor(fractions, dtype=torch.float64)
        edges.append(points[j] + (points[j + 1] - points[j]) * part)
    all_edges = torch.cat(edges)
    return Panels(all_edges[:-1], all_edges[1:])
