r"""Multilayer perceptrons: fully connected layers."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    r"""Linear layers with the activation SiLU between them.

    Args:
        sizes: Number of inputs, widths of the hidden layers, number of outputs.

    Example:
        >>> [type(layer).__name__ for layer in mlp([3, 8, 2])]
        ['Linear', 'SiLU', 'Linear']
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
