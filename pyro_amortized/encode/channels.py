r"""The values of a series with a dimension for the channel, also for series without channels."""

from torch import Tensor

from ..cohort import Cohort


def num_channels(cohort: Cohort, name: str) -> int:
    """Number of channels of a series; 1 without a dimension for channels."""
    values = cohort[name].values
    return 1 if values.dim() == 2 else values.shape[-1]


def by_channel(cohort: Cohort, name: str) -> tuple[Tensor, Tensor]:
    """Values and mask of a series, both of shape ``(individual, time, channel)``."""
    s = cohort[name]
    if s.values.dim() == 2:
        return s.values.unsqueeze(-1), s.observed.unsqueeze(-1)
    return s.values, s.observed
