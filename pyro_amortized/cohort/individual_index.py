r"""Which individuals of a cohort an index selects."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import CohortError

Index = int | slice | Sequence[int] | Tensor


def positions(key: Index, size: int) -> Tensor:
    r"""Positions of the selected individuals.

    Args:
        key: An integer, a slice, a sequence of integers, or a tensor of integers or booleans.
        size: Number of individuals of the cohort.

    Returns:
        Whole numbers from 0 to ``size - 1``, shape ``(individual,)``.

    Raises:
        CohortError: The index names an individual that does not exist, or selects none.
    """
    try:
        index = key if isinstance(key, slice | int | Tensor) else torch.as_tensor(list(key))
        if isinstance(index, Tensor) and index.numel() == 0:
            index = index.long()  # torch reads an empty list as floating
        selected = torch.arange(size)[index].reshape(-1)
    except (IndexError, TypeError, RuntimeError, ValueError) as error:
        raise CohortError(
            f"The individuals {key!r} were selected from a cohort of {size} individuals.",
            f"whole numbers from {-size} to {size - 1}, a slice, or a mask of length {size}.",
            "correct the index.",
        ) from error
    if len(selected) == 0:
        raise CohortError(
            f"The index {key!r} selects none of the {size} individuals of a cohort.",
            "at least one individual.",
            "check the condition by which the individuals were selected.",
        )
    return selected
