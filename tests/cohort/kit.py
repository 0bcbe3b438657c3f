"""Small cohorts, and errors with three parts."""

import pytest
import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.errors import CohortError


def small(num=3, width=4):
    """Integer times and increasing values, all recorded, and a covariate."""
    times = torch.arange(width, dtype=torch.float64).expand(num, -1)
    values = torch.arange(num * width, dtype=torch.float64).reshape(num, width) + 1
    return Cohort({"y": Series(times, values)}, covariates={"w": torch.arange(num).double()})


def refused(match, make):
    """Making it raises an error that matches, with its three parts."""
    with pytest.raises(CohortError, match=match) as caught:
        make()
    assert "Expected: " in str(caught.value)
    assert "To fix: " in str(caught.value)
