r"""Series with and without channels in one shape."""

from torch import Tensor

from ..cohort import Cohort


def num_channels(cohort: Cohort, name: str) -> int:
    """Number of channels of a series."""
    values = cohort[name].values
    return 1 if values.dim() == 2 else values.shape[-1]


def by_channel(cohort: Cohort, name: str) -> tuple[Tensor, Tensor]:
    """Values and what was recorded, shape ``(individual, time, channel)`` also for one channel."""
    s = cohort[name]
    one = s.values.dim() == 2
    return (s.values.unsqueeze(-1), s.observed.unsqueeze(-1)) if one else (s.values, s.observed)
