import torch

from pyro_amortized import Cohort, Series
from pyro_amortized.cohort.time_grid import common_grid
from tests.encode.kit import gridded
from tests.programs import growth_cohort


def test_a_grid_is_found_only_where_it_is_common():
    assert common_grid(gridded(), ["y"]) == {"y": [0.0, 1.0, 2.5, 4.0]}
    assert common_grid(growth_cohort(5), ["y"]) is None
    twice = torch.tensor([[0.0, 1.0, 1.0]])
    assert common_grid(Cohort({"y": Series(twice, torch.ones(1, 3))}), ["y"]) is None
