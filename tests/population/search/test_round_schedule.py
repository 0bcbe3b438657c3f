"""How many draws the rounds of a fit use."""

from types import SimpleNamespace

import pytest
import torch

from pyro_amortized.numerics.laplace import Curvature
from pyro_amortized.population.search.round_schedule import RoundSchedule


@pytest.mark.parametrize(("scale", "num_draws"), [(1.0, 612), (2.0, 300)])
def test_estimates_that_the_data_hardly_determine_get_more_draws(scale, num_draws):
    """Both have a Monte Carlo error of 0.01 standard errors; that of the first one is 0.8."""
    covariance = torch.tensor([0.64, 0.01]).double().diag()
    noise = torch.linalg.inv(covariance) * 0.01**2
    likelihood = SimpleNamespace(
        following=SimpleNamespace(score_covariance=noise),
        individuals=SimpleNamespace(num_draws=300),
    )
    schedule = RoundSchedule(100, 300, 3.0, 0.02, 0.02, 10, most_draws=2000)
    curvature = Curvature(covariance, True, torch.zeros(0, 2))
    ascent = SimpleNamespace(likelihood=likelihood)
    more = schedule.with_enough_draws(ascent, curvature, torch.full((2,), scale).double())
    assert more.num_draws == num_draws
    assert more.most_draws == 0
