r"""The observation times of several endpoints of one system, merged into one list of times."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import ModelError

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
        state)``, or from one quantity, for instance the concentration of a closed form, ``(*,
        individual, time)``, to the same at the times of each series.

    Raises:
        ModelError: The function that is returned gets values of another shape.

    Example:
        >>> times, split = merge_times(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0]]))
        >>> times
        tensor([[0., 1., 2.]])
        >>> [x.squeeze().tolist() for x in split(10 * times.unsqueeze(-1))]
        [[0.0, 20.0], 10.0]
    """
    widths = [x.shape[1] for x in times]
    merged, order = torch.cat(times, 1).sort(dim=1, stable=True)
    place = order.argsort(1)
    num, num_times = place.shape

    def split(states: Tensor) -> tuple[Tensor, ...]:
        if states.ndim >= 3 and num in (1, states.shape[-3]) and states.shape[-2] == num_times:
            by_state = place.unsqueeze(-1).expand(*states.shape[:-2], -1, states.shape[-1])
            return states.gather(-2, by_state).split(widths, -2)
        if states.ndim >= 2 and num in (1, states.shape[-2]) and states.shape[-1] == num_times:
            return states.gather(-1, place.expand(*states.shape[:-1], -1)).split(widths, -1)
        raise ModelError(
            f"`split` of `nlme.merge_times` got values of shape {tuple(states.shape)}.",
            f"(*, individual={num}, time={num_times}, state), or without the states.",
            "pass what was computed at the merged times.",
        )

    return merged, split
