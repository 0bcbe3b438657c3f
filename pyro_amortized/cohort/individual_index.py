r"""Which individuals an index selects."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import CohortError

Index = int | slice | Sequence[int] | Tensor


def positions(key: Index, size: int) -> Tensor:
    r"""Places of some individuals, shape ``(individual,)``.

    Raises:
        CohortError: An individual that is not there, or none.
    """
    try:
        index = torch.arange(size)
        whole = key if isinstance(key, slice | int | Tensor) else torch.as_tensor(list(key))
        if isinstance(whole, Tensor) and whole.numel() == 0:
            whole = whole.long()
        picked = index[whole].reshape(-1)
    except (IndexError, TypeError, RuntimeError, ValueError) as error:
        raise CohortError(
            f"The individuals {key!r} of a cohort of {size} individuals.",
            f"whole numbers from {-size} to {size - 1}, a slice, or a mask of length {size}.",
            "correct the index.",
        ) from error
    if len(picked) == 0:
        raise CohortError(
            f"The individuals {key!r} of a cohort of {size} individuals are none.",
            "at least one individual.",
            "check what they were picked by.",
        )
    return picked
