r"""Generators of random numbers from seeds, so that every random step can be repeated."""

import torch
from torch import Generator

from .arguments import check_seed


def make_generator(seed: int | Generator) -> Generator:
    """A generator made from a seed; a generator is returned as it is.

    Example:
        >>> first, second = (torch.rand(1, generator=make_generator(1)) for _ in range(2))
        >>> bool(first == second)
        True
    """
    check_seed(seed)
    return seed if isinstance(seed, Generator) else torch.Generator().manual_seed(seed)


def fork_seed(generator: Generator) -> int:
    """Draw a seed from ``generator``, for code that only takes seeds."""
    return int(torch.randint(2**62, (), generator=generator))
