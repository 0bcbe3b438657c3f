r"""Hazards whose integral is computed by Gauss-Legendre quadrature.

Between neighbouring times a and b, with :math:`t = a + (b - a) u^2`,

.. math:: \int_a^b h(t)\, \mathrm dt = 2 (b - a) \int_0^1 h(a + (b - a) u^2)\, u\, \mathrm du .

The nodes are denser near a, so that a hazard :math:`t^{k-1}` with k of 0.5 or more is integrated as
well. A hazard that repeats a rise and a fall many times within an interval, as after repeated
doses, is not: it needs times between which it is smooth (``breaks``).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...errors import ModelError
from ...runtime.arguments import check_count
from .hazards import Hazard

NUM_NODES = 32  # of each interval between times: 1e-10 for smooth hazards
NUM_NODES_OF_A_PIECE = 16  # of each interval between breaks: 1e-7 after an oral dose


def integrated_hazard(
    log_hazard: Callable[[Tensor], Tensor],
    *,
    num_nodes: int | None = None,
    breaks: Tensor | None = None,
) -> Hazard:
    r"""A hazard whose integral is computed by Gauss-Legendre quadrature between the times.

    A fit computes the integrals at its estimates with twice the nodes as well, and says so in
    ``fit.message`` if that changes -2LL.

    Args:
        log_hazard: Maps times, shape ``(individual, time)``, to the log hazard, same shape. It may
            depend on parameters and on a marker, for instance
            ``lambda t: base[..., None] + effect[..., None] * nlme.one_compartment(t, ...)``.
        num_nodes: Nodes in each interval. Default: 32, or 16 with ``breaks``.
        breaks: Times at which the hazard is not smooth, such as ``cohort.doses.times``, shape
            ``(break,)`` or ``(individual, break)``, in any order; those that are not positive and
            finite do not count. Every part between two of them has nodes of its own.

    Raises:
        SettingError: ``num_nodes`` is not positive.
        ModelError: ``breaks`` are no times of this form.

    Example:
        >>> hazard = integrated_hazard(lambda t: t.clamp(min=1e-300).log())  # h(t) = t
        >>> hazard(torch.tensor([[2.0, 4.0]], dtype=torch.float64))[1]
        tensor([[2.0000, 8.0000]], dtype=torch.float64)
    """
    if num_nodes is None:
        num_nodes = NUM_NODES if breaks is None else NUM_NODES_OF_A_PIECE
    check_count("num_nodes", num_nodes)
    places = None if breaks is None else _checked(breaks)
    finer = _integrated(log_hazard, 2 * num_nodes, places, None)
    return _integrated(log_hazard, num_nodes, places, finer)


def _integrated(
    log_hazard: Callable[[Tensor], Tensor],
    num_nodes: int,
    breaks: Tensor | None,
    finer: Hazard | None,
) -> Hazard:
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    unit, share = (nodes + 1) / 2, weights / 2

    def rate(times: Tensor) -> Tensor:
        return log_hazard(times).expand(times.shape)

    def curves(times: Tensor) -> tuple[Tensor, Tensor]:
        if breaks is None:
            return between(times)
        every, index = _with_breaks(times, breaks)
        log_values, cumulative = between(every)
        return log_values.gather(-1, index), cumulative.gather(-1, index)

    def between(times: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.as_tensor(unit**2, dtype=times.dtype)
        w = torch.as_tensor(2 * unit * share, dtype=times.dtype)
        begins = torch.cat([torch.zeros_like(times[..., :1]), times[..., :-1]], -1)
        lengths = (times - begins).unsqueeze(-1)
        places = begins.unsqueeze(-1) + lengths * u
        # Each time follows the nodes of the interval that it ends, so the times do not decrease.
        every = torch.cat([places, times.unsqueeze(-1)], -1)
        values = log_hazard(every.flatten(-2)).expand(every.flatten(-2).shape).reshape(every.shape)
        parts = (values[..., :-1].exp() * w * lengths).sum(-1)
        return values[..., -1], parts.cumsum(-1)

    return Hazard(curves, rate=rate, finer=finer)


def _checked(breaks: Tensor) -> Tensor:
    if not isinstance(breaks, Tensor) or breaks.dim() not in (1, 2):
        shape = tuple(breaks.shape) if isinstance(breaks, Tensor) else type(breaks).__name__
        raise ModelError(
            f"`breaks` of a hazard is {shape}.",
            "a tensor of times of shape (break,) or (individual, break).",
            "pass the times at which the hazard changes, for instance `cohort.doses.times`.",
        )
    return breaks.detach()


def _with_breaks(times: Tensor, breaks: Tensor) -> tuple[Tensor, Tensor]:
    """The times and the breaks before the last of them, in order, and the places of the times."""
    if breaks.dim() == 2 and breaks.shape[0] not in (1, times.shape[-2]):
        raise ModelError(
            f"`breaks` of a hazard has shape {tuple(breaks.shape)}.",
            f"({times.shape[-2]}, break), one row for each individual, or (break,).",
            "pass the times of the cohort that the model is called with.",
        )
    last = times[..., -1:]
    inner = breaks.to(times.dtype).expand(*times.shape[:-1], breaks.shape[-1])
    inner = torch.where((inner > 0) & inner.isfinite(), inner, 0.0).minimum(last)
    # Breaks first: at equal times the later column is the end of the interval.
    every, order = torch.cat([inner, times], -1).sort(dim=-1, stable=True)
    return every, order.argsort(-1)[..., inner.shape[-1] :]
