"""A cohort without missing values, and what a mechanism leaves of it."""

import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.runtime.random_numbers import make_generator


def complete(num=2000, width=8, channels=()):
    """Integer times and uniform values, all recorded."""
    times = torch.arange(width, dtype=torch.float64).expand(num, -1)
    values = torch.rand(num, width, *channels, generator=torch.Generator().manual_seed(0)).double()
    return Cohort({"y": Series(times, values)})


def recorded(mechanism, cohort=None, seed=0):
    """What is recorded after a mechanism, which only removes and depends on its generator."""
    cohort = complete() if cohort is None else cohort
    masked = mechanism(cohort, make_generator(seed))
    assert not (masked["y"].observed & ~cohort["y"].observed).any()
    repeated = mechanism(cohort, make_generator(seed))
    assert torch.equal(masked["y"].observed, repeated["y"].observed)
    return masked["y"].observed
