r"""The observation times of several endpoints of one system, merged into one list of times."""

from collections.abc import Callable

import torch
from torch import Tensor

Split = Callable[[Tensor], tuple[Tensor, ...]]


def merge_times(*times: Tensor) -> tuple[Tensor, Split]:
    r"""Merge the observation times of several series into sorted times.

    ::

        times, split = nlme.merge_times(concentration.times, effect.times)
        at_concentration, at_effect = split(nlme.solve(f, initial, times, parameters))

    Args:
        times: Times of each series, shape ``(individual, time)``.

    Returns:
        All times, sorted, and a function from states at these times, ``(*, individual, time,
        state)``, to the states at the times of each series.

    Example:
        >>> times, split = merge_times(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0]]))
        >>> times
        tensor([[0., 1., 2.]])
        >>> [x.squeeze().tolist() for x in split(10 * times.unsqueeze(-1))]
        [[0.0, 20.0], 10.0]
    """
    widths = [x.shape[1] for x in times]
    merged, order = torch.cat(times, 1).sort(dim=1, stable=True)
    place = order.argsort(1).unsqueeze(-1)

    def split(states: Tensor) -> tuple[Tensor, ...]:
        back = states.gather(-2, place.expand(*states.shape[:-2], -1, states.shape[-1]))
        return back.split(widths, -2)

    return merged, split
