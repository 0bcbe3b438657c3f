r"""Networks chosen for a problem."""

import pytest
import torch

import pyro_amortized as pa
from pyro_amortized.errors import TrainingError
from tests.small import train


@pytest.mark.slow
def test_networks_follow_the_shape_of_the_problem(linear):
    times = torch.linspace(0, 3, 5, dtype=torch.float64).expand(20, -1)
    common = pa.Cohort({"y": pa.Series(times, torch.ones(20, 5, dtype=torch.float64))})
    assert train(common).posterior.encoder.form.grid is not None
    assert train(linear).posterior.encoder.form.grid is None
    free = train(common, networks=pa.Networks(grid=False))
    assert free.posterior.encoder.form.grid is None
    with pytest.raises(TrainingError, match="share their times"):
        train(linear, networks=pa.Networks(grid=True))
    with pytest.raises(TrainingError, match="width"):
        pa.Networks(width=0)
